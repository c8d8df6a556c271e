"""Drawing from language models: tokens one by one, with a carried state; whole pieces, and riffs.

Memory does not grow with the length: what is kept are the states, the tokens and their random numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from config import SampleConfig, TokenizerConfig
from events import BOS, EOS, NOTE_OFF, NOTE_ON, PAD, PITCHES, TIME_SHIFT
from graphs import looped
from language_model import LanguageModel
from lm_stepwise import EventGrammar, take_event, write_tokens
from pieces import Vocabulary
from products import in_threads, stop_if_asked
from sampling import automaton, by_chunks, token_chances
from steering.rules import RiffRules
from stepwise import Automaton

PIECES_TOGETHER = 16  # pieces computed together
AT_A_TIME = 256  # tokens in one loop, which hears no Ctrl-C
UNIFORM = 3  # purpose of random numbers: the draws of a language model


def event_grammar(count: int, vocabulary: Vocabulary, strict: bool, device: torch.device | str = "cpu") -> EventGrammar:
    """Which event may come next, for some sequences at their beginning. PAD and BOS never may.

    Args:
        count: B, sequences.
        strict: no NOTE_OFF of a pitch that is silent or was struck at this very time, no NOTE_ON of a sounding one, and nothing but
            NOTE_ON before the first note.
    """
    none = torch.zeros(count, PITCHES, dtype=torch.bool, device=device)
    legal = torch.ones(count, vocabulary.size, dtype=torch.bool, device=device)
    for token in (PAD, BOS):
        legal[:, token] = False
    on, off = (legal[:, first : first + PITCHES] for first in (NOTE_ON, NOTE_OFF))
    after_a_note = [legal[:, EOS : EOS + 1], legal[:, TIME_SHIFT + 1 :]]
    if strict:
        for part in (off, *after_a_note):
            part.fill_(False)
    tokens, pitches = (torch.arange(size, device=device) for size in (vocabulary.size, PITCHES))
    strikes, releases = (tokens[:, None] - first == pitches for first in (NOTE_ON, NOTE_OFF))
    shifts, begun = (tokens > TIME_SHIFT)[:, None], none[:, :1].clone()
    return EventGrammar(strict, legal, on, off, after_a_note, none, none.clone(), begun, strikes, releases, shifts)


def uniform_numbers(seeds: Sequence[int], count: int, attempt: int) -> np.ndarray:
    """The random numbers of each seed, the same whatever their number. float32 [seeds, count]"""
    rngs = (np.random.default_rng(np.random.SeedSequence([seed, UNIFORM, attempt])) for seed in seeds)
    return np.stack([rng.random(count, dtype=np.float32) for rng in rngs])


@torch.inference_mode()
def continue_sequences(
    model: LanguageModel, given: Tensor, grammar: EventGrammar | Automaton, uniform: Tensor, sample: SampleConfig, eos: int | None
) -> Tensor:
    """Go on from what is given, one token at a time.

    Args:
        given: int64 [B, G], from BOS on; G at least 1, and 1 before riffs.
        grammar: of events, or of riffs, for which BOS is a token more; at its beginning.
        uniform: [B, T] in 0..1 (1 excluded), for the draws; T at least 1.
        eos: ends a sequence; None never does.

    Returns:
        int64 [B, at most T], the new tokens; PAD behind an EOS. Ends early when all have ended.
    """
    known, state = model(given)
    walk = model.begin(state, getattr(torch, sample.precision))
    events, riffs = (grammar, None) if isinstance(grammar, EventGrammar) else (None, grammar)
    if events is not None:
        for tokens in given[:, 1:].unbind(dim=1):
            take_event(events, tokens)
    write, chances = looped(write_tokens, given.device), token_chances(sample)
    before, logits, place = given[:, -1], known[:, -1], given.shape[1]
    ended, new = torch.zeros(len(given), dtype=torch.bool, device=given.device), []
    for some in uniform.split(AT_A_TIME, dim=1):
        stop_if_asked()
        new.append(write(walk, chances, before, logits, place, some, events, riffs, ended, PAD, eos))
        if eos is not None and bool(ended.all()):
            break
        before, logits, place = new[-1][:, -1], None, place + some.shape[1]
    return torch.cat(new, dim=1)


def sample_events(
    model: LanguageModel,
    vocabulary: Vocabulary,
    seeds: Sequence[int],
    sample: SampleConfig,
    length: int,
    prime: np.ndarray | None = None,
    attempt: int = 0,
    chunk: int = PIECES_TOGETHER,
) -> list[np.ndarray]:
    """Draw one piece for each seed, from BOS (or after the given beginning) to EOS or to a length.

    Args:
        seeds: any non-negative ints; what a seed gives does not depend on the others.
        length: most tokens of a piece, BOS and the given ones among them.
        prime: int [tokens], from BOS on, shorter than the length.
        attempt: another number draws another piece for the same seed.
        chunk: pieces computed together; rounding, and so a token here and there, may depend on it.

    Returns:
        int64 [tokens] each; EOS last, unless the length ended it.
    """
    device = next(model.parameters()).device
    begin = np.array([BOS]) if prime is None else np.asarray(prime)[:length]
    given = torch.from_numpy(np.repeat(begin[None].astype(np.int64), chunk, axis=0)).to(device)

    def draw(some: list[int]) -> np.ndarray:
        uniform = torch.from_numpy(uniform_numbers(some + some[-1:] * (chunk - len(some)), length - len(begin), attempt)).to(device)
        grammar = event_grammar(chunk, vocabulary, sample.grammar, device)
        return continue_sequences(model, given, grammar, uniform, sample, vocabulary.eos)[: len(some)].cpu().numpy()

    pieces = []
    for rows in in_threads(draw, [list(seeds[first : first + chunk]) for first in range(0, len(seeds), chunk)], device):
        for row in rows:
            ends = np.flatnonzero(row == EOS)
            pieces.append(np.concatenate([begin, row[: ends[0] + 1] if len(ends) else row]))
    return pieces


def sample_riffs_by_lm(
    model: LanguageModel,
    tokenizer: TokenizerConfig,
    seeds: Sequence[int],
    sample: SampleConfig,
    rules: RiffRules | None = None,
    attempt: int = 0,
) -> np.ndarray:
    """Draw one riff for each seed. int64 [seeds, steps], riffs that obey the rules; see sample_riffs"""
    rules = rules or RiffRules(tokenizer)
    device = next(model.parameters()).device

    def chunk(some: list[int]) -> list[Tensor]:
        given = torch.full((len(some), 1), tokenizer.vocab_size, dtype=torch.int64, device=device)
        uniform = torch.from_numpy(uniform_numbers(some, tokenizer.steps, attempt)).to(device)
        return [continue_sequences(model, given, automaton(rules, len(some), device, more=1), uniform, sample, None)]

    return by_chunks(chunk, seeds, device)[0]
