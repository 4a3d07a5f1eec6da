"""A U-Boot of ours in simulated time, with the habits that real ones have."""

import heapq
import re
from dataclasses import dataclass, field

VERSION = "U-Boot 2024.01-rc3 (Jan 01 2024 - 00:00:00 +0000)"
COUNTDOWN = "Hit any key to stop autoboot: {left:2d} "


@dataclass
class FakeUboot:
    """`typed` what comes in, `due` what it says by then; times are simulated seconds from power on."""

    prompt: str = "=> "
    version: str = VERSION
    banner_s: float = 0.3
    delay_s: float = 2.0
    countdown: str = COUNTDOWN
    stop: bytes | None = None
    """None: any key."""
    echo: bool = True
    speaks: str = "code"
    """Or `branch`, `none`."""
    cbsize: int = 1024
    kernel: bool = True
    """Whether bootcmd comes to a kernel; else to the prompt, as Debian's."""
    source: str = "kernel"
    """Or `back`, `reset`, `hang`, `missing`."""
    network: str = "there"
    """Or `asleep` until `pci enum`, `no-dhcp`, `dead`."""
    boot_lines: tuple[tuple[float, str], ...] = ((0.0, "DRAM:  1 GiB"), (0.1, "Net:   eth0"))
    at_prompt_lines: tuple[tuple[float, str], ...] = ()
    char_least_s: float = 0.0
    """What comes faster than this behind a character is lost."""
    saves: bool = True
    protected: tuple[str, ...] = ("ethaddr",)
    env: dict = field(default_factory=lambda: {"bootcmd": "run distro_bootcmd", "loadaddr": "0x40200000"})
    powered_s: float | None = None
    saved: dict | None = None
    commands: list = field(default_factory=list)
    boots: int = 0

    def __post_init__(self):
        self._out: list = []
        self._count = 0
        self._state = "off"
        self._line = b""
        self._keys = b""
        self._last_s = float("-inf")
        self._busy_until = 0.0

    # --- what it says --------------------------------------------------------------------------------------------

    def say(self, at, text):
        self._count += 1
        data = text if isinstance(text, bytes) else text.replace("\n", "\r\n").encode("utf-8", "replace")
        heapq.heappush(self._out, (at, self._count, data))

    def power_on(self, at=0.0):
        self.powered_s = at
        self._state, self._line, self._keys = "booting", b"", b""
        self._out = []
        self.boots += 1
        self.say(at + self.banner_s, f"\n\n{self.version}\n\n")
        for after_s, line in self.boot_lines:
            self.say(at + self.banner_s + after_s, line + "\n")
        start = max([0.2, *(after_s for after_s, _ in self.boot_lines)]) + 0.05
        self._count_s = at + self.banner_s + start
        self.say(self._count_s, self.countdown.format(left=int(self.delay_s)))
        self._left_s = self._count_s + self.delay_s

    def due(self, now):
        self._advance(now)
        found = b""
        while self._out and self._out[0][0] <= now:
            found += heapq.heappop(self._out)[2]
        return found

    def next_at(self):
        times = [self._out[0][0]] if self._out else []
        if self._state in {"booting", "counting"}:
            times += [at for at in (self._count_s, self._left_s) if self._state == "booting" or at != self._count_s]
        return min(times, default=None)

    def _advance(self, now):
        if self._state == "booting" and now >= self._count_s:
            self._state = "counting"
            self._key(b"", self._count_s)
        if self._state == "counting" and now >= self._left_s:
            self._state = "system" if self.kernel else "prompt"
            if self.kernel:
                self.say(self._left_s, "\n\nStarting kernel ...\n\n[    0.000000] Booting Linux on physical CPU 0x0\n")
            else:
                self.say(self._left_s, "\nno boot device\n" + self.prompt)

    # --- what it hears -------------------------------------------------------------------------------------------

    def typed(self, data, now):
        self._advance(now)
        for number in range(len(data)):
            if now - self._last_s < self.char_least_s:
                continue
            self._last_s = now
            self._key(data[number : number + 1], now)

    def _key(self, key, now):
        if self._state == "booting":
            self._keys += key
        elif self._state == "counting":
            self._keys += key
            stopped = bool(self._keys) if self.stop is None else self.stop in self._keys
            if stopped:
                self._state = "prompt"
                self.say(now, "\n" + self.prompt)
                for after_s, line in self.at_prompt_lines:
                    self.say(now + after_s, line)
        elif self._state == "prompt":
            self._edit(key, now)

    def _edit(self, key, now):
        if key == b"\x03":
            self._line = b""
            self.say(now, "<INTERRUPT>\n" + self.prompt)
            self._busy_until = 0.0
        elif now < self._busy_until:
            return
        elif key in {b"\r", b"\n"}:
            line, self._line = self._line.decode("ascii", "replace"), b""
            self.say(now, "\n")
            self._run_line(line, now)
        elif len(self._line) < self.cbsize - 1:
            self._line += key
            if self.echo:
                self.say(now, key)
        elif self.echo:
            self.say(now, b"\x07")

    # --- its shell -----------------------------------------------------------------------------------------------

    def _run_line(self, line, now):
        self._status = 0
        self._print = lambda text: self.say(now, text)
        self._now = now
        going = self._sequence(line)
        if going and now >= self._busy_until:
            self.say(now, self.prompt)

    def _sequence(self, line):
        """Whether it is still there."""
        return all(self._one(command) for command in _split(line))

    def _one(self, command):
        match = re.fullmatch(r"if (.*?); then (.*?)(?:; else (.*))?; fi", command)
        if match and self.speaks != "none":
            if not self._sequence(match[1]):
                return False
            return self._sequence(match[2] if self._status == 0 else match[3] or "true")
        words = self._words(command)
        if not words:
            return True
        self.commands.append(" ".join(words))
        act = getattr(self, "_do_" + words[0], None)
        if act is None:
            self._print(f"Unknown command '{words[0]}' - try 'help'\n")
            self._status = 1
            return True
        status = act(words[1:])
        self._status = status or 0
        return status is not None

    def _words(self, command):
        found, word, quote, any_word = [], "", "", False
        at = 0
        while at < len(command):
            letter = command[at]
            at += 1
            if letter == "\\" and at < len(command):
                word, any_word = word + command[at], True  # old hush: in quotes, too
                at += 1
            elif quote:
                if letter == quote:
                    quote = ""
                elif letter == "$" and quote == '"':
                    value, at = self._expanded(command, at)
                    word += value
                else:
                    word += letter
            elif letter in "'\"":
                quote, any_word = letter, True
            elif letter == "$":
                value, at = self._expanded(command, at)
                word, any_word = word + value, True
            elif letter == " ":
                if any_word:
                    found.append(word)
                word, any_word = "", False
            else:
                word, any_word = word + letter, True
        return [*found, word] if any_word else found

    def _expanded(self, command, at):
        if command[at : at + 1] == "?":
            return (str(self._status) if self.speaks == "code" else ""), at + 1
        match = re.compile(r"\{(\w+)\}|(\w+)").match(command, at)
        return ("$", at) if match is None else (self.env.get(match[1] or match[2], ""), match.end())

    def _do_echo(self, words):
        self._print(" ".join(words) + "\n")
        return 0

    def _do_true(self, _words):
        return 0

    def _do_false(self, _words):
        return 1

    def _do_version(self, _words):
        self._print(f"{self.version}\n\ngcc 12\n")
        return 0

    def _do_printenv(self, words):
        if words:
            if words[0] not in self.env:
                self._print(f'## Error: "{words[0]}" not defined\n')
                return 1
            self._print(f"{words[0]}={self.env[words[0]]}\n"[: self.cbsize + 16])
            return 0
        size = sum(len(name) + len(value) + 2 for name, value in self.env.items())
        self._print("".join(f"{name}={self.env[name]}\n" for name in sorted(self.env)))
        self._print(f"\nEnvironment size: {size}/8188 bytes\n")
        return 0

    def _do_setenv(self, words):
        if words[0] in self.protected:
            self._print(f'## Error: Can\'t overwrite "{words[0]}"\n')
            return 1
        if len(words) > 1:
            self.env[words[0]] = " ".join(words[1:])
        else:
            self.env.pop(words[0], None)
        return 0

    def _do_saveenv(self, _words):
        self._print("Saving Environment to Flash... " + ("OK\n" if self.saves else "Failed (-5)\n"))
        if self.saves:
            self.saved = dict(self.env)
        return 0 if self.saves else 1

    def _do_run(self, words):
        return self._status if self._sequence(self.env.get(words[0], "")) else None

    def _do_sleep(self, words):
        self._busy_until = self._now + float(words[0])
        self.say(self._busy_until, self.prompt)

    def _do_reset(self, _words):
        self._print("resetting ...\n")
        waiting = b"".join(data for _, _, data in sorted(self._out))
        self.power_on(self._now)
        self.say(self._now, waiting)

    def _do_pci(self, _words):
        if self.network == "asleep":
            self.network = "there"
        return 0

    _do_usb = _do_true

    def _do_dhcp(self, _words):
        if self.network == "no-dhcp":
            self._print("Unknown command 'dhcp' - try 'help'\n")
            return 1
        if self.network in {"asleep", "dead"}:
            self._print("No ethernet found.\n")
            return 1
        self._print("BOOTP broadcast 1\nDHCP client bound to address 10.0.0.5 (3 ms)\n")
        return 0

    def _do_tftpboot(self, words):
        self._print(f"Using eth0 device\nFilename '{words[1]}'.\nLoading: #\ndone\n")
        return 0

    def _do_source(self, words):
        if self.source == "missing":
            self._print("Unknown command 'source' - try 'help'\n")
            return 1
        return self._boot(words[0])

    def _do_pxe(self, words):
        return 0 if words == ["get"] else self._boot("pxe")

    def _boot(self, what):
        self._print(f"## Executing script at {what}\n")
        if self.source in {"kernel", "missing"}:
            self._print("Starting kernel ...\n\n")
            self._state = "system"
            return None
        if self.source == "reset":
            self._print("Bad FIT kernel image format!\n")
            return self._do_reset([])
        if self.source == "hang":
            self._print("### ERROR ### Please RESET the board ###\n")
            self._state = "dead"
            return None
        self._print("Bad Linux ARM64 Image magic!\n")
        return 1


def _split(line):
    """Commands between `;`, with whole `if … fi` as one."""
    found, word, quote, depth = [], "", "", 0
    at = 0
    while at < len(line):
        letter = line[at]
        if letter == "\\":
            word += line[at : at + 2]
            at += 2
            continue
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter == ";" and not depth:
            found.append(word)
            word = ""
            at += 1
            continue
        word += letter
        if not quote and word.strip().startswith("if "):
            depth = 0 if re.search(r"; fi$", word) else 1
        at += 1
    return [part.strip() for part in [*found, word] if part.strip()]
