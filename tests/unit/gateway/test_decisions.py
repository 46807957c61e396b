"""Decisions of the limits script as the gateway reads them."""

from __future__ import annotations

from services.gateway.tenancy import limits_script


def test_a_time_beyond_exact_numbers_is_read() -> None:
    """A key whose large debt of tokens is now paid back by one token per minute."""
    scope = '{"reserved":0,"tokens":0,"tokens_reset":1.2e+16}'
    reply = f'{{"seconds":1,"scopes":{{"key":{scope},"model":{{"reserved":0}}}}}}'
    decision = limits_script._decision(reply)
    assert decision.scopes["key"].tokens_reset == 1.2e16
    assert decision.scopes["key"].tokens == 0
