"""`python3 probe.py MODEL` checks the one model of a Triton, for liveness probes. It needs the standard library only.

It asks the model itself, because Triton also reports a model ready whose process has died. It is copied beside each
model of a repository. It exits with 0 if the model works, and otherwise with 1 and one line that says what is wrong.
"""

import argparse
import json
import sys
import typing
import urllib.error
import urllib.request

PORT = 8000
SECONDS = 5.0
STALL_SECONDS = 30.0


def fault_of(description: dict[str, typing.Any], stall_seconds: float) -> str:
    """Return the fault that a model's `description` of itself shows, or an empty text."""
    age = (description.get("load") or {}).get("step_age_s")
    if age is not None and age >= stall_seconds:
        return f"the engine has made no progress with its requests for {age:.1f} s"
    return ""


def probe(model: str, *, url: str, seconds: float, stall_seconds: float) -> str:
    """Return the fault of `model` in the Triton at `url`, which has `seconds` to answer, or an empty text."""
    body = json.dumps({"params": json.dumps({"describe": True})}).encode()
    address = f"{url}/v2/models/{model}/generate"
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})  # noqa: S310  # http only
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:  # noqa: S310  # as above
            return fault_of(json.loads(json.load(answer)["description"]), stall_seconds)
    except urllib.error.HTTPError as error:
        return f"it answers with status {error.code}: {error.read(500).decode(errors='replace')}"
    except OSError as error:
        return f"it does not answer within {seconds:g} s: {error}"
    except (KeyError, TypeError, ValueError) as error:
        return f"its answer is not understood: {error!r}"


def main() -> int:
    """Run the command, and return its exit status."""
    parser = argparse.ArgumentParser(description="Exit with 0 if a model works.")
    parser.add_argument("model")
    parser.add_argument("--url", default=f"http://127.0.0.1:{PORT}", help="URL of Triton's HTTP endpoint")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time that the model has to answer")
    parser.add_argument(
        "--stall-seconds", type=float, default=STALL_SECONDS, help="time without progress that is a fault"
    )
    options = parser.parse_args()
    fault = probe(options.model, url=options.url, seconds=options.seconds, stall_seconds=options.stall_seconds)
    if fault:
        print(f"{options.model}: {fault}", file=sys.stderr)
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main())
