"""A terminal with a shell, without time and without processes: bytes typed in, bytes printed out. What a command prints
and how it ends is given beforehand."""

import re
from dataclasses import dataclass, field

_PIECE = re.compile(rb" _b=\$_b'([^']*)';printf '\\n%s%s %s\\n' (@bh) ([0-9a-f]+n) (\d+):\$\{#_b\}")
_EMPTY = re.compile(rb" _b=;_r=;printf '\\n%s%s %s\\n' (@bh) ([0-9a-f]+n) 0:\$\{#_b\}")
_PROBE = re.compile(rb" printf '\\n%s%s %s\\n' (@bh) ([0-9a-f]+p) 0")
_ASK = re.compile(rb" printf '\\n%s%s %s\\n' (@bh) ([0-9a-f]+q) \"\$_r\"")
_RUN = re.compile(rb" printf '\\n%s%s %s\\n' @bh ([0-9a-f]+)b 0;sh -c .*")


@dataclass
class FakeShell:
    """`login` is (user, password) or None. `noise` stands before the first mark of a command's end, inside of it, where
    `breaks_mark`. `loses` are typed lines, by their number, of which the 20th character does not arrive."""

    prompt: bytes = b"board:~# "
    echo: bool = True
    end: bytes = b"\r\n"
    output: bytes = b""
    code: int = 0
    login: tuple[bytes, bytes] | None = None
    hangs: bool = False
    ignores: int = 0
    breaks_mark: bool = False
    breaks_both: bool = False
    loses: frozenset[int] = frozenset()
    scripts: list[bytes] = field(default_factory=list)
    typed_lines: int = 0
    state: str = "shell"
    _line: bytes = b""
    _var: bytes = b""
    _result: bytes = b""

    def __post_init__(self):
        if self.login is not None:
            self.state = "login"

    def banner(self):
        return b"board login: " if self.state == "login" else self.prompt

    def typed(self, data):
        """What is printed for what is typed."""
        out = b""
        for byte in data:
            key = bytes([byte])
            if key == b"\r":
                line, self._line = self._line, b""
                if self.echo and self.state != "password":
                    out += b"\r\n"
                out += self._do(line)
            elif key in b"\x03\x1c\x1a":
                self._line = b""
                out += self._interrupted()
            elif key == b"\x15":
                self._line = b""
            else:
                self._line += key
                if self.echo and self.state != "password":
                    out += key
        return out

    def _interrupted(self):
        if self.state == "running":
            if self.ignores:
                self.ignores -= 1
                return b"^C"
            self.state = "shell"
        elif self.state != "shell":
            return b""
        return b"^C" + self.end + self.prompt

    def _print(self, *lines):
        return b"".join(self.end + line + self.end for line in lines)

    def _do(self, line):
        if self.state == "login":
            self._user = line
            self.state = "password"
            return b"Password: "
        if self.state == "password":
            right = (self._user, line) == self.login
            self.state = "shell" if right else "login"
            return self.end + (b"Welcome!" + self.end + self.prompt if right else b"Login incorrect\r\nboard login: ")
        if self.state == "running":
            return b""  # it waits in the terminal, and is lost with Ctrl-C
        self.typed_lines += 1
        if self.typed_lines in self.loses:
            line = line[:20] + line[21:]
        return self._command(line) + (self.prompt if self.state == "shell" else b"")

    def _command(self, line):
        if match := _PROBE.fullmatch(line):
            return self._print(match[1] + match[2] + b" 0")
        if match := _EMPTY.fullmatch(line):
            self._var = self._result = b""
            return self._print(match[1] + match[2] + b" 0:0")
        if match := _PIECE.fullmatch(line):
            self._var += match[1]
            return self._print(b"%s%s %s:%d" % (match[2], match[3], match[4], len(self._var)))
        if match := _ASK.fullmatch(line):
            return self._print(match[1] + match[2] + b" " + self._result)
        if match := _RUN.fullmatch(line):
            return self._run(match[1])
        return b"sh: syntax error" + self.end if line.strip() else b""

    def _run(self, number):
        self.scripts.append(re.sub(rb"\\0(\d{3})", lambda m: bytes([int(m[1], 8)]), self._var))
        out = self._print(b"@bh" + number + b"b 0") + self.output.replace(b"\n", self.end)
        if self.hangs:
            self.state = "running"
            return out
        self._result = b"%s:%d" % (number, self.code)
        mark = b"@bh" + number + b"e " + self._result
        broken = mark[:9] + b"[    3.141592] usb 1-1: reset\r\n" + mark[9:]
        first = broken if self.breaks_mark or self.breaks_both else mark
        return out + self.end + first + self.end + (broken if self.breaks_both else mark) + self.end
