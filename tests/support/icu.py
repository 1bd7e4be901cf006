"""The conversion of domain names by ICU, as Postfix calls it."""

from __future__ import annotations

import ctypes
import re

from support.peers import absent

LIBRARY = "libicuuc.so.72"
"""The library that Debian's Postfix 3.7 uses. Later ones have other rules: their UTS #46 is of a later Unicode."""
NONTRANSITIONAL_TO_ASCII = 0x10
NAME_MAX_OCTETS = 1024
HOST_NAME = re.compile(r"(?=.*[A-Za-z_-])(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*")
"""Host names in the sense of Postfix."""


class Info(ctypes.Structure):
    """UIDNAInfo of ICU."""

    _fields_ = (
        ("size", ctypes.c_int16),
        ("is_transitional_different", ctypes.c_int8),
        ("reserved_b3", ctypes.c_int8),
        ("errors", ctypes.c_uint32),
        ("reserved_i2", ctypes.c_int32),
        ("reserved_i3", ctypes.c_int32),
    )


class Icu:
    """ICU with the options of Postfix: with or without `enable_idna2003_compatibility`."""

    def __init__(self, *, idna2003: bool) -> None:
        try:
            library = ctypes.CDLL(LIBRARY)
        except OSError:
            absent(f"{LIBRARY} is not installed (Debian package libicu72)")
        self._convert = library.uidna_nameToASCII_UTF8_72
        self._type = library.u_charType_72
        opened = library.uidna_openUTS46_72
        opened.restype = ctypes.c_void_p
        options = 0 if idna2003 else NONTRANSITIONAL_TO_ASCII
        self._handle = ctypes.c_void_p(opened(ctypes.c_uint32(options), ctypes.byref(ctypes.c_int(0))))

    def knows(self, character: str) -> bool:
        """Return whether its Unicode has the character."""
        return bool(self._type(ctypes.c_int32(ord(character))))

    def host_name(self, name: str) -> str | None:
        """Return the name that Postfix asks DNS for; None if there is none."""
        octets = name.encode()
        found = ctypes.create_string_buffer(NAME_MAX_OCTETS)
        info, error = Info(size=ctypes.sizeof(Info)), ctypes.c_int(0)
        length = self._convert(
            self._handle, octets, len(octets), found, NAME_MAX_OCTETS - 1, ctypes.byref(info), ctypes.byref(error)
        )
        if error.value > 0 or info.errors or length <= 0:
            return None
        text = found.raw[:length].decode("ascii")
        return text if HOST_NAME.fullmatch(text) else None
