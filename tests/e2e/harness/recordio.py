"""RecordIO, as the API's streams frame their messages: a length in decimal, a newline, that many bytes."""


class Decoder:
    """Takes bytes in any portions, gives whole records."""

    def __init__(self):
        self._buffer = b""

    def feed(self, data):
        self._buffer += data
        records = []
        while True:
            head, newline, rest = self._buffer.partition(b"\n")
            if not newline:
                if len(head) > 20 or (head and not head.isdigit()):
                    raise ValueError(f"not a record's length: {head[:40]!r}")
                return records
            if not head.isdigit():
                raise ValueError(f"not a record's length: {head[:40]!r}")
            size = int(head)
            if len(rest) < size:
                return records
            records.append(rest[:size])
            self._buffer = rest[size:]


def encode(record):
    return b"%d\n%s" % (len(record), record)
