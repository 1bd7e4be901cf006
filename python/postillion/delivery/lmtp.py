"""lmtp: the program smtp with the protocol LMTP (RFC 2033, lmtp(8))."""

from postillion.delivery.smtp.__main__ import main, prepare

__all__ = ["main", "prepare"]

if __name__ == "__main__":
    main("lmtp")
