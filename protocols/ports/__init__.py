"""The ports: what an actor may ask of the world, as `typing.Protocol`s that adapters fulfil."""
