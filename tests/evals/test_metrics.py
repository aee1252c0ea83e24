from tunesmith.evals.metrics import exact_match, normalise, same_message, token_f1, wilson


def test_case_punctuation_and_blanks_do_not_matter():
    assert normalise("  After, eleven   WORKING days! ") == "after eleven working days"
    assert exact_match("After eleven working days.", "after eleven working days") == 1.0
    assert exact_match("after ten working days", "after eleven working days") == 0.0


def test_token_f1_agrees_with_the_definition():
    # two of three given words are right, two of four wanted ones were given: 2 * (2/3 * 1/2) / (2/3 + 1/2)
    assert abs(token_f1("by the river", "by the green gate") - 4 / 7) < 1e-12
    assert token_f1("", "") == 1.0
    assert token_f1("", "a") == 0.0


def test_tool_calls_are_compared_by_name_and_arguments_not_by_spelling():
    right = {"content": "", "tool_calls": [{"function": {"name": "get_time", "arguments": {"city": "Oslo"}}}]}
    same = {"content": None, "tool_calls": [{"function": {"name": "get_time", "arguments": '{ "city":"Oslo" }'}}]}
    other = {"content": None, "tool_calls": [{"function": {"name": "get_time", "arguments": '{"city": "Rome"}'}}]}
    assert same_message(same, right) == 1.0
    assert same_message(other, right) == 0.0
    assert same_message({"content": "Oslo"}, right) == 0.0


def test_json_is_compared_as_json_and_text_to_the_letter():
    assert same_message({"content": '{"a":1, "b":2}'}, {"content": '{"b": 2, "a": 1}'}) == 1.0
    assert same_message({"content": "Cat dog"}, {"content": "cat dog"}) == 0.0


def test_wilson_matches_a_published_value():
    # Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662
    low, high = wilson(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert wilson(0, 0) == (0.0, 1.0)
