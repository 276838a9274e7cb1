from telephony.limits import MessageRate


async def test_an_allowance_fills_up_with_time_but_not_without_end(manual_clock):
    rate = MessageRate(60, manual_clock)
    assert sum(rate.allows() for _ in range(700)) == 600
    await manual_clock.advance(1)
    assert sum(rate.allows() for _ in range(700)) == 60
    await manual_clock.advance(3600)
    assert sum(rate.allows() for _ in range(700)) == 600


async def test_the_pace_of_twilio_is_never_too_fast(manual_clock):
    rate = MessageRate(60, manual_clock)
    for _ in range(3000):
        assert rate.allows()
        await manual_clock.advance(0.02)
