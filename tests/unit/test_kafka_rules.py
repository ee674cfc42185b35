"""What of Kafka needs no broker: settings made into options, topic names, buffers."""

import ssl

import pytest
from aiokafka.errors import KafkaError

from runtime.kafka import buffers
from runtime.kafka.buffers import Buffer
from runtime.kafka.client import KafkaSettings, connection, describe
from runtime.kafka.topics import inbox_topic, topic_name

PLAIN = KafkaSettings(bootstrap_servers=("a:9092", "b:9092"))


def test_plain_settings_are_options_without_secrets():
    options = connection(PLAIN)
    assert options["bootstrap_servers"] == ["a:9092", "b:9092"]
    assert "ssl_context" not in options
    assert "sasl_plain_password" not in options


def test_tls_and_sasl_settings_check_the_host_and_carry_the_user():
    settings = KafkaSettings(
        bootstrap_servers=("a:9093",),
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-256",
        user="node",
        password="s3cret",
    )
    options = connection(settings)
    assert options["ssl_context"].check_hostname
    assert options["ssl_context"].verify_mode is ssl.CERT_REQUIRED
    assert options["sasl_plain_password"] == "s3cret"
    assert options["sasl_mechanism"] == "SCRAM-SHA-256"
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in str(settings)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (KafkaSettings(bootstrap_servers=("a:1",), security_protocol="SASL_SSL"), "a user and"),
        (
            KafkaSettings(bootstrap_servers=("a:1",), security_protocol="SSL", ca="/not/there"),
            "cannot be read",
        ),
    ],
)
def test_wrong_settings_are_a_clear_error(settings, says):
    with pytest.raises(ValueError, match=says):
        connection(settings)


def test_an_error_is_one_line():
    assert describe(KafkaError("no\nway")) == "no way"
    assert describe(TimeoutError()) == "no answer in time"


def test_topics_are_named_as_kafka_takes_them():
    assert inbox_topic("tickwright", "node-1") == "tickwright.inbox.node-1"
    for bad in ("a b", "ü", "", "x" * 250, "a/b"):
        with pytest.raises(ValueError, match="kafka takes no topic"):
            topic_name(bad)


def test_a_buffer_is_bounded_in_records_and_in_bytes(monkeypatch):
    monkeypatch.setattr(buffers, "RECORDS_MAX", 2)
    buffer = Buffer()
    assert buffer.offer(b"a", 10)
    assert buffer.offer(b"b", 20)
    assert not buffer.offer(b"c", 30)
    monkeypatch.setattr(buffers, "RECORDS_MAX", 10)
    monkeypatch.setattr(buffers, "BYTES_MAX", 3)
    assert not buffer.offer(b"cc", 30)
    assert buffer.offer(b"c", 30)


def test_what_is_being_sent_stays_until_it_has_left_and_is_never_expired_meanwhile():
    buffer = Buffer()
    for number in range(4):
        buffer.offer(b"%d" % number, number)
    assert [each.record for each in buffer.take(2)] == [b"0", b"1"]
    assert buffer.expire(100) == 0
    buffer.keep()
    assert [each.record for each in buffer.take(3)] == [b"0", b"1", b"2"]
    buffer.left(2)
    assert len(buffer) == 2
    assert buffer.expire(2) == 1
    assert [each.record for each in buffer.take(9)] == [b"3"]
    assert buffer.clear() == 1
    buffer.left(1)
    assert len(buffer) == 0
    assert buffer.offer(b"x" * 10, 5)
