#!/usr/bin/env python3
"""Makes examples/images: an OCI layout with small images for linux/amd64 and linux/arm64.

Each image holds one static program of a few hundred bytes, which greets and exits, so the images
run wherever containers do. The output is the same at every run.
"""
import hashlib, io, json, gzip, os, shutil, struct, tarfile

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "images")
TAGS = ["1.0.0", "1.1.0", "1.2.0-rc.1", "1.2.0", "2.0.0", "nightly", "2026.01", "2026.02", "2026.04.1"]


def elf(machine, code, message):
    """A static ELF program: header, one segment, code, message."""
    base, start = 0x400000, 64 + 56
    total = start + len(code) + len(message)
    header = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9) + struct.pack(
        "<HHIQQQIHHHHHH", 2, machine, 1, base + start, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, total, total, 0x1000)
    return header + segment + code + message


def amd64(message):
    # write(1, message, length); exit(0)
    length = 38
    code = b"\xb8\x01\x00\x00\x00" + b"\xbf\x01\x00\x00\x00"
    code += b"\x48\x8d\x35" + struct.pack("<i", length - 17)
    code += b"\xba" + struct.pack("<I", len(message)) + b"\x0f\x05"
    code += b"\xb8\x3c\x00\x00\x00" + b"\x31\xff" + b"\x0f\x05"
    code += bytes(length - len(code))
    return elf(62, code, message)


def arm64(message):
    # mov x0,#1; adr x1,message; mov x2,#length; mov x8,#64; svc; mov x0,#0; mov x8,#93; svc
    movz = lambda register, value: 0xD2800000 | value << 5 | register
    offset = 7 * 4
    adr = 0x10000000 | (offset & 3) << 29 | (offset >> 2) << 5 | 1
    words = [movz(0, 1), adr, movz(2, len(message)), movz(8, 64), 0xD4000001, movz(0, 0), movz(8, 93), 0xD4000001]
    return elf(183, b"".join(struct.pack("<I", word) for word in words), message)


def blob(content):
    digest = hashlib.sha256(content).hexdigest()
    with open(f"{TOP}/blobs/sha256/{digest}", "wb") as file:
        file.write(content)
    return {"digest": f"sha256:{digest}", "size": len(content)}


def compact(value):
    return json.dumps(value, separators=(",", ":")).encode()


def layer(name, content, mode):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode, entry.mtime = len(content), mode, 0
        tar.addfile(entry, io.BytesIO(content))
    tar = out.getvalue()
    zipped = gzip.compress(tar, 9, mtime=0)
    return "sha256:" + hashlib.sha256(tar).hexdigest(), dict(
        mediaType="application/vnd.oci.image.layer.v1.tar+gzip", **blob(zipped))


def image(tag, architecture, day):
    message = f"hello {tag} from {architecture}\n".encode()
    program = (amd64 if architecture == "amd64" else arm64)(message)
    layers = [layer("etc/motd", b"one layer that all images share\n", 0o644), layer("hello", program, 0o755)]
    config = blob(compact({
        "created": f"2026-01-{day:02}T00:00:00Z", "architecture": architecture, "os": "linux",
        "config": {"Entrypoint": ["/hello"], "Labels": {"org.opencontainers.image.version": tag}},
        "rootfs": {"type": "layers", "diff_ids": [diff for diff, _ in layers]},
    }))
    manifest = blob(compact({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": dict(mediaType="application/vnd.oci.image.config.v1+json", **config),
        "layers": [descriptor for _, descriptor in layers],
    }))
    return dict(mediaType="application/vnd.oci.image.manifest.v1+json", **manifest,
                platform={"architecture": architecture, "os": "linux"})


shutil.rmtree(TOP, ignore_errors=True)
os.makedirs(f"{TOP}/blobs/sha256")
entries = []
for day, tag in enumerate(TAGS, 1):
    index = blob(compact({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [image(tag, architecture, day) for architecture in ("amd64", "arm64")],
    }))
    entries.append(dict(mediaType="application/vnd.oci.image.index.v1+json", **index,
                        annotations={"org.opencontainers.image.ref.name": tag}))
with open(f"{TOP}/index.json", "wb") as file:
    file.write(compact({"schemaVersion": 2, "manifests": entries}))
with open(f"{TOP}/oci-layout", "wb") as file:
    file.write(b'{"imageLayoutVersion":"1.0.0"}')
