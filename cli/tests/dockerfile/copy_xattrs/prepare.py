import io, tarfile

# CAP_NET_RAW, permitted and effective, as the kernel stores it.
value = bytes.fromhex("0100000200200000000000000000000000000000").decode("latin-1")
with tarfile.open("context/with.tar", "w", format=tarfile.PAX_FORMAT, encoding="latin-1") as archive:
    entry = tarfile.TarInfo("a")
    entry.size = 2
    entry.pax_headers = {"SCHILY.xattr.security.capability": value}
    archive.addfile(entry, io.BytesIO(b"1\n"))
