"""What a failed test says of its processes."""

from pathlib import Path

from tests.support.diagnosis import LINE_CHARACTERS, goroutines, log_end

DUMP = """SIGQUIT: quit

goroutine 0 gp=0x1 m=0 mp=0x1 [idle]:
runtime.futex(0x1)
\truntime/sys_linux_amd64.s:558 +0x21

goroutine 7 gp=0x2 m=nil [chan receive, 2 minutes]:
runtime.gopark(0x1, 0x2)
\truntime/proc.go:462 +0xce
github.com/dapr/kit/loop.(*loop[...]).Run(0x1, {0x2})
\tgithub.com/dapr/kit/loop.go:94 +0x393
main.work()
\tmain.go:3 +0x1
created by main.main in goroutine 1
\tmain.go:1 +0x1

goroutine 8 gp=0x3 m=nil [chan receive]:
github.com/dapr/kit/loop.(*loop[...]).Run(0x5, {0x6})
\tgithub.com/dapr/kit/loop.go:94 +0x393
main.work()
\tmain.go:3 +0x1
"""


def test_errors_and_warnings_come_first_and_then_the_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "llm.log"
    lines = [
        '{"event":"a","level":"warning"}',
        'time="now" level=error msg="no"',
        "LOG: fine",
        "PANIC: x" + "y" * 1000,
        *(f"line {number}" for number in range(50)),
    ]
    log.write_text("\n".join(lines) + "\n")
    shown = log_end(log, lines=3).splitlines()
    assert shown == [
        lines[0],
        lines[1],
        lines[3][:LINE_CHARACTERS],
        "…",
        "line 47",
        "line 48",
        "line 49",
    ]


def test_goroutines_of_one_stack_are_one_line() -> None:
    assert goroutines(DUMP).splitlines() == [
        "2 × [chan receive] github.com/dapr/kit/loop.(*loop[...]).Run < main.work",
        "1 × [idle] ",
    ]


def test_anything_else_has_no_goroutines() -> None:
    assert goroutines("Traceback (most recent call last):\n  File x\n") == ""
