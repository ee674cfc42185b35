"""Messages as bytes and back: structs by name among what is imported, plain builtins, and refs.

A name in a record never imports anything and never runs a module's own code: it is looked up in
the dictionaries of modules that are loaded already, and has to be a msgspec Struct there.
"""

import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import msgspec

from protocols.actor import Ref, Unreadable
from protocols.envelopes import REF_EXTENSION, RefData
from runtime.kernel.refs import LocalRef

_BUILTINS: Final[dict[str, type | None]] = {
    "NoneType": None,
    "bool": bool,
    "int": int,
    "float": float,
    "str": str,
    "bytes": bytes,
    "list": list,
    "tuple": tuple,
    "dict": dict,
    "datetime": datetime,
}
_PLAIN: Final = (type(None), bool, int, float, str, bytes)
_REF: Final = "Ref"
"""The name of a message that is a ref itself."""


class Codec:
    """Turns messages into (type name, bytes) and back.

    Args:
        export: Makes of a ref what crosses.
        adopt: Makes a ref of what crossed.
    """

    def __init__(
        self, *, export: Callable[[Ref], RefData], adopt: Callable[[RefData], Ref]
    ) -> None:
        self._export = export
        self._adopt = adopt
        self._encoder = msgspec.msgpack.Encoder(enc_hook=self._encode_other)
        self._ref_data = msgspec.msgpack.Decoder(RefData)
        self._names: dict[type, str] = {}
        self._decoders: dict[type, msgspec.msgpack.Decoder[Any]] = {}

    def encode(self, message: Any) -> tuple[str, bytes]:
        """The name of its type, and its bytes.

        Raises:
            Unreadable: It is, or holds, what cannot cross.
        """
        kind = type(message)
        try:
            name = self._names.get(kind)
            if name is None:
                name = self._name(message)
            return name, self._encoder.encode(message)
        except Unreadable:
            raise
        except (
            msgspec.MsgspecError,
            TypeError,
            ValueError,
            OverflowError,
            RecursionError,
        ) as error:
            raise Unreadable(f"a {kind.__qualname__} cannot cross: {error}") from error

    def _name(self, message: Any) -> str:
        kind = type(message)
        if isinstance(message, msgspec.Struct):
            name = f"{kind.__module__}:{kind.__qualname__}"
            if find_struct(name) is not kind:
                raise Unreadable(f"{name} cannot cross: no module has it under that name")
            self._names[kind] = name
            return name
        if isinstance(message, Ref):
            return _REF
        _check_plain(message)
        return kind.__name__

    def decode(self, name: str, payload: bytes) -> Any:
        """The message.

        Raises:
            Unreadable: Its type is not known here, or the bytes are not of it.
        """
        kind = Any if name == _REF else _BUILTINS.get(name, Any)
        if name not in _BUILTINS and name != _REF:
            kind = find_struct(name)
            if kind is None:
                raise Unreadable(f"no message of type {name[:200]} is known on this node")
        decoder = self._decoders.get(kind)  # type: ignore[arg-type]
        try:
            if decoder is None:
                decoder = msgspec.msgpack.Decoder(
                    kind, dec_hook=_as_it_is, ext_hook=self._decode_extension
                )
                self._decoders[kind] = decoder  # type: ignore[index]
            message = decoder.decode(payload)
        except Exception as error:  # a struct's own __post_init__ may raise anything
            raise Unreadable(f"bytes that are no {name[:200]}: {error}") from error
        if name == _REF and not isinstance(message, Ref):
            raise Unreadable("bytes that are no ref")
        return message

    def _encode_other(self, value: Any) -> msgspec.msgpack.Ext:
        if isinstance(value, Ref):
            return msgspec.msgpack.Ext(REF_EXTENSION, msgspec.msgpack.encode(self._export(value)))
        raise TypeError(f"a {type(value).__qualname__} inside it has no form to cross in")

    def _decode_extension(self, code: int, data: memoryview) -> Ref:
        if code != REF_EXTENSION:
            raise ValueError(f"an extension of unknown type {code}")
        return self._adopt(self._ref_data.decode(data))


def find_struct(name: str) -> type[msgspec.Struct] | None:
    """The Struct that a name means, if its module is loaded already."""
    module_name, _, path = name.partition(":")
    module = sys.modules.get(module_name)
    found: Any = module
    for part in path.split("."):
        if not isinstance(found, type) and found is not module:
            return None
        found = getattr(found, "__dict__", {}).get(part)  # never a module's own __getattr__
    if isinstance(found, type) and issubclass(found, msgspec.Struct):
        return found
    return None


def _check_plain(value: Any) -> None:
    """Refuse, in bare containers, what would come out as something else on the other side."""
    kind = type(value)
    if kind in _PLAIN or isinstance(value, LocalRef | Ref):
        return
    if kind is datetime:
        if value.tzinfo is None:
            raise Unreadable("a naive datetime cannot cross")
    elif kind in (list, tuple):
        for item in value:
            _check_plain(item)
    elif kind is dict:
        for key, item in value.items():
            _check_plain(key)
            _check_plain(item)
    else:
        raise Unreadable(
            f"a {kind.__qualname__} cannot cross bare: make it a field of a message's struct"
        )


def _as_it_is(kind: type, value: Any) -> Any:
    """Let msgspec check what a field of another type has got; refs have been made by then."""
    del kind
    return value
