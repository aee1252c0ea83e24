"""Every shape of row becomes the same Row, and every fault of a row is one sentence."""

import json

import pytest

from tunesmith.data.formats import Row
from tunesmith.data.shapes import CONVERT, SHAPES, recognise
from tunesmith.errors import InvalidData

USER, ASSISTANT = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}
ASKED = [USER, ASSISTANT]
SYSTEM = {"role": "system", "content": "Be kind."}
CALL = {"type": "function", "function": {"name": "look", "arguments": {"at": "it"}}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


PNG = "data:image/png;base64,iVBORw0KGgo="


def image(url, **fields):
    return {"type": "image_url", "image_url": {"url": url, **fields}}


SEEN = image(PNG, detail="low")


def row(**fields) -> Row:
    kind = recognise(fields)
    assert kind is not None
    return Row(line=1, kind=kind, **CONVERT[kind](fields))


def reason(**fields) -> str:
    with pytest.raises(InvalidData) as caught:
        row(**fields)
    return caught.value.message


def turn(speaker, text):
    return {"from": speaker, "value": text}


# -- conversations ----------------------------------------------------------------------------------------------------


def test_openai_chat_keeps_messages_and_tools():
    found = row(messages=[SYSTEM, *ASKED], tools=[TOOL])
    assert found == Row(1, messages=[SYSTEM, *ASKED], tools=[TOOL], kind="chat")


def test_a_developer_is_a_system_and_text_parts_are_one_text():
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    found = row(messages=[{"role": "developer", "content": "Be kind."}, {"role": "user", "content": parts}, ASSISTANT])
    assert found.messages == [SYSTEM, *ASKED]


def test_tool_calls_come_with_arguments_as_an_object_from_text_or_the_older_field():
    arguments = json.dumps({"at": "it"})
    call = {"id": "c1", "function": {"name": "look", "arguments": arguments}}
    new = {"role": "assistant", "content": None, "tool_calls": [call]}
    old = {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": arguments}}
    result = {"role": "tool", "tool_call_id": "c1", "content": "seen"}
    found = row(messages=[USER, new, result, ASSISTANT], functions=[TOOL["function"]])
    assert found.messages[1] == {"role": "assistant", "content": "", "tool_calls": [{**CALL, "id": "c1"}]}
    assert found.messages[2] == result
    assert found.tools == [TOOL]
    older = row(messages=[USER, old, {"role": "function", "name": "look", "content": "seen"}, ASSISTANT])
    assert older.messages[1]["tool_calls"] == [CALL]
    assert older.messages[2] == {"role": "tool", "name": "look", "content": "seen"}


def test_weights_are_kept_and_no_weight_is_one():
    answers = [{**ASSISTANT, "weight": 0}, {**ASSISTANT, "weight": 1}, ASSISTANT, {**ASSISTANT, "weight": None}]
    found = row(messages=[message for answer in answers for message in (USER, answer)])
    assert found.weights == [0, 0, 0, 1, 0, 1, 0, 1]
    assert all("weight" not in message for message in found.messages)
    assert row(messages=ASKED).weights is None


def test_alpaca_joins_instruction_and_input_and_keeps_system_and_history():
    assert row(instruction="hi", input="", output="yes").messages == ASKED
    assert row(instruction="hi", output="yes").messages == ASKED
    assert row(instruction="Add:", input="1 2", output="3").messages[0]["content"] == "Add:\n1 2"
    found = row(instruction="and?", output="no", system="Be kind.", history=[["hi", "yes"]])
    assert found.messages == [SYSTEM, *ASKED, {"role": "user", "content": "and?"}, {"role": "assistant", "content": "no"}]


def test_sharegpt_with_tools_function_calls_and_observations():
    call = json.dumps({"name": "look", "arguments": {"at": "it"}})
    turns = [turn("human", "hi"), turn("function_call", call), turn("observation", "seen"), turn("gpt", "yes")]
    found = row(conversations=turns, tools=json.dumps([TOOL["function"]]), system="Be kind.")
    assert found.tools == [TOOL]
    assert found.messages == [
        SYSTEM, USER, {"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": "seen"}, ASSISTANT
    ]
    assert row(conversations=turns[:1] + turns[-1:], tools="").tools == []
    assert row(conversations=ASKED).messages == ASKED


def test_a_list_in_a_function_call_is_several_calls():
    calls = json.dumps([{"name": "look", "arguments": {"at": "it"}}] * 2)
    assert row(conversations=[turn("human", "hi"), turn("function_call", calls)]).messages[1]["tool_calls"] == [CALL, CALL]


def test_question_and_answer_are_a_conversation():
    assert row(question="hi", answer="yes", system="Be kind.").messages == [SYSTEM, *ASKED]


def test_a_prompt_and_completion_of_text_stay_text_and_of_messages_train_the_completion_only():
    assert row(prompt="1, 2,", completion=" 3") == Row(1, prompt="1, 2,", completion=" 3", kind="prompt_completion")
    assert row(prompt="", completion="once").prompt == ""
    found = row(prompt=[*ASKED, USER], completion=[ASSISTANT])
    assert found.messages == [*ASKED, *ASKED]
    assert found.weights == [0, 0, 0, 1]


def test_plain_text_is_kept():
    assert row(text=" once ") == Row(1, text=" once ", kind="text")


# -- preferences ------------------------------------------------------------------------------------------------------

NO = {"role": "assistant", "content": "no"}


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "hi", "chosen": "yes", "rejected": "no"},
        {"question": "hi", "chosen": "yes", "rejected": "no"},
        {"instruction": "hi", "input": "", "chosen": "yes", "rejected": "no"},
        {"prompt": [USER], "chosen": [ASSISTANT], "rejected": [NO]},
        {"chosen": [USER, ASSISTANT], "rejected": [USER, NO]},
        {"conversations": [turn("human", "hi")], "chosen": turn("gpt", "yes"), "rejected": turn("gpt", "no")},
        {"input": {"messages": [USER]}, "preferred_output": [ASSISTANT], "non_preferred_output": [NO]},
        {"input": {"messages": [USER], "parallel_tool_calls": True}, "preferred_completion": [ASSISTANT],
         "non_preferred_completion": [NO]},
    ],
)
def test_preference_pairs_of_every_shape_are_a_prompt_with_two_answers(fields):
    assert row(**fields) == Row(1, messages=[USER], chosen=[ASSISTANT], rejected=[NO], kind="preference")


def test_faults_of_a_preference_pair_are_told():
    assert reason(prompt="hi", chosen="yes", rejected="yes") == "The fields chosen and rejected are the same."
    assert reason(prompt="hi", chosen="", rejected="yes") == "The field chosen is empty."
    assert reason(prompt="hi", chosen="yes", rejected=None) == "There is no field rejected."
    assert reason(chosen="yes", rejected="no").startswith("There is no prompt: ")
    assert reason(prompt="hi", chosen=[USER], rejected="no") == "The field chosen does not end with an assistant message."


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": ASKED},
        {"conversations": [turn("human", "hi"), turn("gpt", "yes")]},
        {"prompt": "hi", "completion": "yes"},
        {"prompt": [USER], "completion": [ASSISTANT]},
    ],
)
@pytest.mark.parametrize("label", [True, 1, "True", "1"])
def test_kto_rows_of_every_shape_are_a_conversation_with_a_label(fields, label):
    assert row(**fields, label=label) == Row(1, messages=ASKED, label=True, kind="kto")


@pytest.mark.parametrize("label", [False, 0, "false", "0", "bad"])
def test_a_bad_answer_may_be_labelled_in_words_or_numbers(label):
    assert row(messages=ASKED, label=label).label is False


def test_a_label_that_is_neither_true_nor_false_is_told():
    assert reason(messages=ASKED, label="fine") == "The label is 'fine'; it may be true or false."
    assert reason(messages=ASKED, label=None) == "The label is None; it may be true or false."


# -- reinforcement, images ---------------------------------------------------------------------------------------------


def test_a_row_for_reinforcement_waits_for_an_answer_and_keeps_the_rest_for_the_grader():
    made = CONVERT["reinforcement"]({"messages": [SYSTEM, USER], "tools": [TOOL], "reference": {"answer": 7}, "hard": True})
    assert made == {"messages": [SYSTEM, USER], "tools": [TOOL], "item": {"reference": {"answer": 7}, "hard": True}}
    with pytest.raises(InvalidData, match="last message has the role assistant; it must be the user's"):
        CONVERT["reinforcement"]({"messages": ASKED})


def test_images_of_the_user_are_kept_and_a_refusal_is_what_the_assistant_says():
    content = [{"type": "text", "text": "What is it?"}, SEEN, image("https://example.com/a.jpg")]
    found = row(messages=[{"role": "user", "content": content}, {"role": "assistant", "content": None, "refusal": "No."}])
    assert found.messages == [{"role": "user", "content": content}, {"role": "assistant", "content": "No."}]


@pytest.mark.parametrize(
    ("messages", "check"),
    [
        ({}, "missing_messages_list"),
        (["hi"], "data_type"),
        ([{"content": "hi"}], "message_missing_key"),
        ([{"role": "user"}, ASSISTANT], "message_missing_key"),
        ([{"role": "user", "content": None}, ASSISTANT], "missing_content"),
        ([{**USER, "mood": "glad"}, ASSISTANT], "message_unrecognized_key"),
        ([{**USER, "weight": 1}, ASSISTANT], "message_unrecognized_key"),
        ([{"role": "bot", "content": "hi"}], "unrecognized_role"),
        ([USER], "example_missing_assistant_message"),
    ],
)
def test_a_fault_has_the_name_that_openais_cookbook_gives_its_check(messages, check):
    with pytest.raises(InvalidData) as caught:
        row(messages=messages)
    assert caught.value.code == check


# -- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "The field messages is not a list of messages."),
        ("hi", "The field messages is not a list of messages."),
        (["hi"], "Message 1 is not an object."),
        ([{"content": "hi"}], "Message 1 has no role; roles are system, "),
        ([USER, {"role": "bot", "content": "yes"}], "Message 2 has the role 'bot'; roles are system, "),
        ([{"role": ["user"], "content": "hi"}], "Message 1 has the role ['user']; roles are "),
        ([{"role": "user"}, ASSISTANT], "Message 1 (user) has no content."),
        ([{"role": "user", "content": 7}, ASSISTANT], "Message 1 has a content that is neither text nor a list of parts."),
        ([{"role": "user", "content": [{"type": "audio"}]}, ASSISTANT], "Message 1 has a content part of type 'audio'"),
        ([USER, {"role": "assistant", "content": [SEEN]}], "Message 2 has a content part of type 'image_url'; only text"),
        ([{"role": "user", "content": [{"type": "image_url"}]}, ASSISTANT], "Message 1 has a content part that is neither"),
        ([{"role": "user", "content": [image("http://x/a.png")]}, ASSISTANT], "Message 1 has an image that is neither"),
        ([{"role": "user", "content": [image("data:image/gif;base64,AA")]}, ASSISTANT], "Message 1 has an image that"),
        ([{"role": "user", "content": [image(PNG, detail="fine")]}, ASSISTANT], "Message 1 has an image with the detail 'fine'"),
        ([{"role": "user", "content": [SEEN] * 11}, ASSISTANT], "It holds 11 images; at most 10"),
        ([{**USER, "mood": "glad"}, ASSISTANT], 'Message 1 contains an extra "mood".'),
        ([USER], "There is no assistant message, so there is nothing to learn."),
        ([*ASKED, USER], "The last message has the role user; it must be the assistant's answer."),
        ([USER, {"role": "assistant", "content": " \n"}], "Message 2, the assistant's, is empty."),
        ([USER, {"role": "assistant", "content": None}], "Message 2, the assistant's, is empty."),
        ([USER, {"role": "tool", "content": "seen"}, ASSISTANT], "Message 2 is a tool's result, but no tool call stands"),
        ([USER, {"role": "assistant", "tool_calls": [{"function": {}}]}], "Message 2 has a tool call without a function name."),
        ([USER, {"role": "assistant", "tool_calls": "look"}], "Message 2 has tool_calls that are not a list."),
        (
            [USER, {"role": "assistant", "tool_calls": [{"function": {"name": "look", "arguments": "{it"}}]}],
            "Message 2 calls look with arguments that are not a JSON object.",
        ),
        ([{**USER, "tool_calls": [CALL]}, ASSISTANT], "Message 1 calls a tool, but its role is user."),
        ([USER, {**ASSISTANT, "weight": 0}], "Every assistant message has weight 0, so no token would be trained."),
        ([USER, {**ASSISTANT, "weight": 0.5}], "Message 2 has the weight 0.5; it may be 0 or 1."),
        ([USER, {**ASSISTANT, "weight": True}], "Message 2 has the weight True; it may be 0 or 1."),
        ([{**USER, "weight": 1}, ASSISTANT], "Message 1 has a weight, but only assistant messages are trained."),
    ],
)
def test_faults_of_a_conversation_are_told(messages, said):
    assert reason(messages=messages).startswith(said)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"question": "hi", "answer": ""}, "The field answer is empty."),
        ({"question": "hi", "answer": None}, "There is no field answer."),
        ({"question": "hi", "answer": 42}, "The field answer is not text."),
        ({"prompt": "hi", "completion": " "}, "The field completion is empty."),
        ({"instruction": "", "output": "yes"}, "The field instruction is empty."),
        ({"instruction": "hi", "input": 7, "output": "yes"}, "The field input is not text."),
        ({"instruction": "hi", "output": "yes", "history": ["hi"]}, "The field history is not a list of [question, answer]"),
        ({"instruction": "hi", "output": "yes", "history": [["hi", ""]]}, "The field history has a question or answer without"),
        ({"question": "hi", "answer": "yes", "system": 7}, "The field system is not text."),
        ({"text": "\n"}, "The field text is empty."),
        ({"conversations": "hi"}, "The field conversations is not a list of messages."),
        ({"conversations": [turn("alien", "hi")]}, "Message 1 is from 'alien'; it may be from human, "),
        ({"conversations": [{"from": "human"}]}, "Message 1 is not an object with `from` and a text as `value`."),
        ({"conversations": [turn("function_call", "look")]}, "Message 1 is a function_call, but its value is not JSON."),
        ({"messages": ASKED, "tools": "{"}, "The field tools is not JSON."),
        ({"messages": ASKED, "parallel_tool_calls": "yes"}, "The field parallel_tool_calls is neither true nor false."),
        ({"messages": ASKED, "tools": {"name": "look"}}, "The field tools is not a list."),
        ({"messages": ASKED, "tools": [{"type": "function"}]}, "Tool 1 is not a function with a name."),
    ],
)
def test_faults_of_the_other_shapes_are_told(fields, said):
    assert reason(**fields).startswith(said)


def test_lists_that_a_table_keeps_as_json_text_are_read():
    assert row(messages=json.dumps(ASKED)).messages == ASKED
    assert row(prompt=json.dumps([USER]), chosen=json.dumps([ASSISTANT]), rejected="no").chosen == [ASSISTANT]


def test_every_format_can_be_told_by_its_fields_but_the_one_that_lacks_its_end():
    assert {name for name, _ in SHAPES} == set(CONVERT) - {"reinforcement"}
    assert recognise({"id": 1, "title": "x"}) is None


@pytest.mark.parametrize("as_json", [False, True])
def test_calls_and_tools_keep_exactly_the_fields_that_they_have(as_json):
    """As objects, and as the JSON that a `Json` column of the `datasets` library holds."""
    call = {"type": "function", "function": {"name": "look", "arguments": {"at": None, "deep": {"k": [1, None]}}}}
    parameters = {"type": "object", "properties": {"at": {}}, "x-own": None}
    tool = {"type": "function", "function": {"name": "look", "parameters": parameters}}
    wrapped = json.dumps if as_json else (lambda value: value)
    answer = {"role": "assistant", "content": None, "tool_calls": [wrapped(call)]}
    found = row(messages=[USER, answer], tools=[wrapped(tool)])
    assert found.messages[1]["tool_calls"] == [call]
    assert found.tools == [tool]
    assert row(messages=[USER, answer | {"tool_calls": json.dumps([call])}]).messages == found.messages


@pytest.mark.parametrize("pieces", [None, [], [{"text": "a"}], [{"label": 1, "text": "a"}], ["a"]])
def test_segments_are_pieces_of_text_with_a_label(pieces):
    assert row(segments=[{"label": True, "text": "a"}]).segments == [("a", True)]
    assert "egment" in reason(segments=pieces)
