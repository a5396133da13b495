"""Takes a Wasm module; gives the names that it imports and exports.

Run as a program, it prints them: `python -m support.wasm dist/almoner.wasm`.
"""

import pathlib
import sys


def imports(module: pathlib.Path) -> set[str]:
    """`module.name` of each import."""
    names, reader = set(), _section(module, 2)
    for _ in range(reader.number() if reader else 0):
        names.add(f"{reader.name()}.{reader.name()}")
        match reader.byte():
            case 0:  # function: type index
                reader.number()
            case 1:  # table: element type, limits
                reader.byte()
                reader.limits()
            case 2:  # memory: limits
                reader.limits()
            case 3:  # global: type, mutability
                reader.byte()
                reader.byte()
    return names


def exports(module: pathlib.Path) -> set[str]:
    names, reader = set(), _section(module, 7)
    for _ in range(reader.number() if reader else 0):
        names.add(reader.name())
        reader.byte()
        reader.number()
    return names


# The SDK exports every callback there is; those of TCP, gRPC and foreign functions we never need.
NEEDLESS = ("proxy_on_downstream_", "proxy_on_upstream_", "proxy_on_new_connection")
NEEDLESS += ("proxy_on_grpc_", "proxy_on_foreign_function")


def capabilities(module: pathlib.Path) -> set[str]:
    """What Envoy's `allowed_capabilities` has to name for the module to work."""
    functions = {name.removeprefix("env.") for name in imports(module)}
    callbacks = {name for name in exports(module) if name.startswith("proxy_on_")}
    return functions | {name for name in callbacks if not name.startswith(NEEDLESS)}


class _Reader:
    def __init__(self, content: bytes):
        self.content, self.at = content, 0

    def byte(self) -> int:
        self.at += 1
        return self.content[self.at - 1]

    def number(self) -> int:
        """An unsigned LEB128."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def take(self, length: int) -> bytes:
        self.at += length
        return self.content[self.at - length : self.at]

    def name(self) -> str:
        return self.take(self.number()).decode()

    def limits(self) -> None:
        for _ in range(1 + (self.byte() & 1)):
            self.number()


def _section(module: pathlib.Path, wanted: int) -> _Reader | None:
    reader = _Reader(module.read_bytes())
    if reader.take(8) != b"\0asm\1\0\0\0":
        raise ValueError(f"{module} is no Wasm module")
    while reader.at < len(reader.content):
        kind, content = reader.byte(), reader.take(reader.number())
        if kind == wanted:
            return _Reader(content)
    return None


if __name__ == "__main__":
    path = pathlib.Path(sys.argv[1])
    print("imports", *sorted(imports(path)), sep="\n  ")
    print("exports", *sorted(exports(path)), sep="\n  ")
