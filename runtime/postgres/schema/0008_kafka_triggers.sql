-- Jobs that are triggered by the records of a Kafka topic.

ALTER TABLE job_triggers
    ADD COLUMN kafka_topic text COLLATE "C",
    ADD COLUMN kafka_group text COLLATE "C",      -- null: the tenant's own for that topic
    ADD COLUMN kafka_key text COLLATE "C",        -- null: a record of any key
    DROP CONSTRAINT job_triggers_check,
    ADD CONSTRAINT job_triggers_check CHECK (
        num_nonnulls(event, parent_key, kafka_topic) = 1
        AND (kafka_topic IS NOT NULL OR num_nonnulls(kafka_group, kafka_key) = 0)
    );
CREATE INDEX job_triggers_kafka ON job_triggers (kafka_topic, job_key, number)
    WHERE kafka_topic IS NOT NULL;
