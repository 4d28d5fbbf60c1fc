"""The files that are appended to a .tflite file as a ZIP archive, such as lists of labels: where their readers look for them.

The archive lies behind the tables, which no reader of the tables sees. Its files are not compressed, because the readers map them from the disk.
"""

import io
import zipfile

from tfdistill.errors import ExportError

# The first date that the format has: equal files get equal bytes.
_DATE = (1980, 1, 1, 0, 0, 0)


def append(content, files):
    """Returns a .tflite file with files appended to it.

    Args:
        content: The file as bytes, with nothing behind its tables.
        files: Dict of name -> bytes; may be empty.
    """
    if not files:
        return content
    whole = io.BytesIO(content)
    whole.seek(0, io.SEEK_END)
    # "w" counts its offsets from here; "a" would take weights that look like an archive for one.
    with zipfile.ZipFile(whole, "w") as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system, entry.external_attr = 0, 0
            archive.writestr(entry, data)
    return whole.getvalue()


class Appended:
    """The files appended to a .tflite file from anywhere.

    Args:
        content: The file as bytes.

    Attributes:
        names: Their names.
        start: The byte at which they begin; the size of the file if there are none.
    """

    def __init__(self, content):
        self._content, self._entries = content, {}
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                self._entries = {entry.filename: entry for entry in archive.infolist()}
        except Exception:  # no archive; or bytes that look like the end of one, which its readers do not open either
            self._entries = {}
        self.names = tuple(self._entries)
        self.start = min((entry.header_offset for entry in self._entries.values()), default=len(content))

    def read(self, name):
        """Returns the content of a file.

        Raises:
            ExportError: if there is none of that name, or it is compressed or damaged.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise ExportError(f"It names the associated file '{name}', which is not in it.", "a file with all that it names")
        # What is stored as it is cannot grow beyond the bytes of the file.
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or entry.file_size != entry.compress_size:
            raise ExportError(
                f"It holds the associated file '{name}' compressed.", "files stored as they are, which programs on devices read"
            )
        try:
            with zipfile.ZipFile(io.BytesIO(self._content)) as archive:
                return archive.read(entry)
        except Exception as error:  # sizes and checksums of a file from anywhere
            raise ExportError(f"It is damaged: its associated file '{name}' cannot be read: {error}.") from error
