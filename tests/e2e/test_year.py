"""A year of `certbot renew` twice a day, with certificates and staples of every length."""

from __future__ import annotations

import datetime

import pytest

from e2e.test_verbs import CERTBOT
from e2e.world import World
from e2e.year import STEP, Certificate, Served, Year

STEPS = 730  # runs of `certbot renew`
DAYS_6_PLAIN, DAYS_6_MUST = Certificate(6, 7, False), Certificate(6, 4, True)
LONGER = (
    Certificate(45, 4, False), Certificate(45, 7, True),
    Certificate(64, 4, True), Certificate(64, 7, False),
    Certificate(90, 4, False), Certificate(90, 7, True),
    Certificate(397, 4, True), Certificate(397, 7, False),
)  # fmt: skip
#: The runs in which no responder answers, and those in which the CA does not: two days each. At the first of either,
#: the certificates for 6, 45 and 90 days are due, at half and at two thirds of their lifetimes.
RESPONDERS_DOWN, CA_DOWN = range(120, 124), range(240, 244)
DUE_THEN = (6, 45, 90)


def faults(served: dict[Certificate, Served], until: datetime.datetime) -> list[str]:
    """Return what a client would refuse at that moment, if nothing changes before."""
    found = []
    for certificate, seen in served.items():
        if seen.expires <= until:
            found.append(f"{certificate.name} has expired")
        if seen.staple_ends is not None and seen.staple_ends <= until:
            found.append(f"the staple of {certificate.name} has expired")
        if seen.staple_ends is None and certificate.must_staple:
            found.append(f"{certificate.name} has no staple")
    return found


@pytest.mark.long
@pytest.mark.skipif(CERTBOT < (4, 0), reason="older certbots renew 30 days before the end, and know no profiles")
@pytest.mark.parametrize("certificates", [(DAYS_6_PLAIN,), (DAYS_6_MUST,), LONGER], ids=["6 plain", "6 must", "longer"])
def test_a_year_of_renewals_twice_a_day(world: World, certificates: tuple[Certificate, ...]) -> None:
    """No client is ever handed what it refuses; requests and reloads are as few as the year's events explain.

    Each run asks the responder once for each certificate (the last success is twelve hours old, and six are allowed),
    and once more for each new one. nginx is reloaded once where the CA has published newer responses, or a staple was
    missing, and once for each new certificate. The first run with a responder, after two days without, has the newest
    staples everywhere again, and lets the must-staple certificates go live that had to wait for theirs.
    """
    failed, unstapled = [], []
    with Year(world, certificates) as year:
        for certificate in certificates:
            year.get(certificate)
        served = {each: year.look(each) for each in certificates}
        for step in range(1, STEPS + 1):
            year.move(year.begin + step * STEP, is_responding=step not in RESPONDERS_DOWN)
            world.front.is_down = step in CA_DOWN
            before, asked, reloads = served, year.asked(), world.reloads()
            run = year.certbot("renew", check=False)
            told = f"run {step}: {run}"
            failed += [step] if run.exit_code else []
            served = {each: year.look(each) for each in certificates}
            assert faults(served, year.now + STEP) == [], told
            new = sum(served[each].serial != before[each].serial for each in certificates)
            newest = {each: year.published(each.staple_days) for each in certificates}
            if step in RESPONDERS_DOWN:
                unstapled += [(step, each) for each in certificates if served[each].staple_begins is None]
                assert world.reloads() - reloads == new, told
            else:
                is_newer = any(before[each].staple_begins != newest[each] for each in certificates)
                assert {each: seen.staple_begins for each, seen in served.items()} == newest, told
                assert year.asked() - asked == len(certificates) + new, told
                assert world.reloads() - reloads == is_newer + new, told
    due = [each for each in certificates if each.lifetime_days in DUE_THEN]
    waiting = RESPONDERS_DOWN if any(each.must_staple for each in due) else ()
    assert failed == [*waiting, *CA_DOWN]
    assert unstapled == [(step, each) for step in RESPONDERS_DOWN for each in due if not each.must_staple]
