"""Our BLEU, GLEU and ROUGE are those of sacrebleu, nltk and rouge-score."""

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from nltk.translate.gleu_score import sentence_gleu
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import sentence_bleu

from tunesmith.graders.overlap import bleu, gleu, rouge_l, rouge_n

ROUGE = RougeScorer([f"rouge{order}" for order in range(1, 6)] + ["rougeL"])
WORDS = ["the", "cat", "sat", "on", "mat,", "A", "dog.", "3.5", "x-1", "don't", "&amp;", "(yes)", "-", "$5", "CAT"]
texts = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
near = 1e-9


@given(texts, texts)
@example("", "the cat")
@example("the cat", "")
@example("the cat sat on the mat, today", "the cat sat on the mat, today")
@settings(max_examples=300, deadline=None)
def test_every_measure_is_its_library_s(answer, right):
    assert abs(bleu(answer, right) - sentence_bleu(answer, [right]).score / 100) < near
    scores = ROUGE.score(right, answer)
    for order in range(1, 6):
        assert abs(rouge_n(answer, right, order) - scores[f"rouge{order}"].fmeasure) < near
    assert abs(rouge_l(answer, right) - scores["rougeL"].fmeasure) < near
    assume(answer and right)
    assert abs(gleu(answer, right) - sentence_gleu([right.split()], answer.split())) < near


@given(st.text(max_size=40), st.text(max_size=40))
@settings(deadline=None)
def test_any_text_has_a_score_from_0_to_1_and_the_same_text_the_greatest(answer, right):
    for measure in (bleu, gleu, rouge_l, lambda a, b: rouge_n(a, b, 1)):
        assert 0 <= measure(answer, right) <= 1 + near
        assert measure(answer, answer) >= measure(answer, right) - near


def test_words_of_any_script_count_in_rouge():
    assert rouge_n("быстрая лиса", "быстрая собака", 1) == 0.5
