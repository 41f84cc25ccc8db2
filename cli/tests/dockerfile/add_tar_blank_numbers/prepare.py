import io, tarfile

buffer = io.BytesIO()
with tarfile.open(fileobj=buffer, mode="w") as archive:
    entry = tarfile.TarInfo("a")
    entry.size = 2
    archive.addfile(entry, io.BytesIO(b"1\n"))
data = bytearray(buffer.getvalue())
for start, length in [(100, 8), (108, 8), (116, 8), (136, 12), (329, 8), (337, 8)]:
    data[start:start + length] = b" " * length
data[148:156] = b" " * 8
data[148:156] = b"%06o\0 " % sum(data[:512])
open("context/a.tar", "wb").write(data)
