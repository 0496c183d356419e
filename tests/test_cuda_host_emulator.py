"""The emulator: what right kernels compute, and that wrong ones are found (cuda_host/trials.cu)."""

import ctypes
from collections.abc import Callable, Iterator

import pytest
import torch
from cuda_host.build import HOST, build
from cuda_host.emulated import BACKWARDS, IN_ORDER, SANITIZE, SHUFFLED
from torch import Tensor

NUMBERS = torch.arange(64, dtype=torch.float32) + 0.25


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    found = ctypes.CDLL(str(build([HOST / "trials.cu"], sanitize=SANITIZE)))
    found.cuda_host_set_order.argtypes = [ctypes.c_uint64]
    return found


@pytest.fixture(params=[IN_ORDER, BACKWARDS, SHUFFLED, SHUFFLED + 1])
def any_order(library: ctypes.CDLL, request: pytest.FixtureRequest) -> Iterator[None]:
    library.cuda_host_set_order(request.param)
    yield
    library.cuda_host_set_order(IN_ORDER)


Trial = Callable[..., Tensor]


@pytest.fixture
def trial(library: ctypes.CDLL) -> Trial:
    """Runs trial_<name> on 64 numbers with n blocks; the outputs [5, 64]."""

    def run(name: str, numbers: Tensor = NUMBERS, n: int = 1) -> Tensor:
        out = torch.zeros(5, 64)
        call(library, name, numbers, out, n)
        return out

    return run


def call(library: ctypes.CDLL, name: str, *values: Tensor | int | bytes) -> None:
    function = getattr(library, f"trial_{name}")
    function.restype = ctypes.c_char_p
    message = function(*(ctypes.c_void_p(v.data_ptr()) if isinstance(v, Tensor) else v for v in values))
    if message:
        raise RuntimeError(message.decode())


@pytest.mark.usefixtures("any_order")
def test_barriers(trial: Trial) -> None:
    assert torch.equal(trial("reverse")[0], NUMBERS.flip(0))
    assert torch.equal(trial("reverse", n=7)[0], NUMBERS.flip(0))  # seven blocks write the same


def test_missing_barrier_shows(library: ctypes.CDLL, trial: Trial) -> None:
    results = []
    for order in (IN_ORDER, BACKWARDS):
        library.cuda_host_set_order(order)
        results.append(trial("reverse_without_barrier")[0].nan_to_num(nan=-1.0))
    library.cuda_host_set_order(IN_ORDER)
    assert not torch.equal(results[0], NUMBERS.flip(0)) and not torch.equal(*results)


@pytest.mark.skipif(
    bool(SANITIZE), reason="shared memory is made otherwise, so that the sanitizer knows its edges"
)
def test_unwritten_shared_memory_is_nan(trial: Trial) -> None:
    for _ in range(2):  # the second block must not find what the first one left
        assert trial("read_what_nobody_wrote", n=2)[0].isnan().nonzero().tolist() == [[5]]
        trial("reverse")


def test_threads_may_end_before_a_barrier(trial: Trial) -> None:
    assert trial("end_before_barrier")[0].tolist() == [20.0] * 40 + [0.0] * 24


WRONG = {
    "barrier_for_some": r"different barriers: __syncthreads.* at trials.cu:\d+, but thread \(.*__syncthreads",
    "end_before_shuffle": r"__shfl_xor_sync at trials.cu:\d+ .* but thread \(7, 0, 0\) of block .* has ended",
    "two_shuffles": r"waits in __shfl_sync at trials.cu:\d+ .* but .* waits in __shfl_sync",
    "shuffle_against_barrier": r"waits in __syncwarp at trials.cu:\d+ .* but .* waits in __syncthreads",
    "half_a_mask": "mask of all lanes",
    "copy_of_12_bytes": "copies 4, 8 or 16 bytes",
    "misplaced_copy": "needs addresses of whole 16 bytes",
    "copies_to_one_place": "where another one is still on its way",
    "end_before_copy": r"thread \(5, 0, 0\) of block .* has ended before the copies",
}


@pytest.mark.usefixtures("any_order")
@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(trial: Trial, name: str) -> None:
    with pytest.raises(RuntimeError, match=WRONG[name]):
        trial(name)
    assert torch.equal(trial("reverse")[0], NUMBERS.flip(0))  # and the next kernel runs


@pytest.mark.usefixtures("any_order")
def test_shuffles(trial: Trial) -> None:
    lane = torch.arange(64)
    warp, in_eight = lane // 32 * 32, lane // 8 * 8
    sources = [
        warp + (lane + 3) % 32,
        in_eight + 1,
        lane ^ 5,
        torch.where(lane % 32 >= 3, lane - 3, lane),
        torch.where(lane % 16 < 13, lane + 3, lane),
    ]
    for out, source in zip(trial("shuffles"), sources, strict=True):
        assert torch.equal(out, NUMBERS[source])


@pytest.mark.usefixtures("any_order")
def test_votes(trial: Trial) -> None:
    yes = torch.cat([torch.ones(32), torch.arange(32) % 3 == 0])
    votes = trial("votes", yes)
    assert votes[0].tolist() == [32.0] * 32 + [11.0] * 32
    assert votes[1].tolist() == [1.0] * 64 and votes[2].tolist() == [1.0] * 32 + [0.0] * 32
    assert votes[3].tolist() == [43.0] * 64 and votes[4].tolist() == [1.0] * 64
    assert not trial("votes", torch.zeros(64)).any() and (trial("votes", torch.ones(64))[4] == 3).all()


@pytest.mark.usefixtures("any_order")
def test_sums_of_warps_and_blocks(trial: Trial) -> None:
    numbers = torch.rand(64, generator=torch.Generator().manual_seed(0))
    out = trial("sums", numbers)
    torch.testing.assert_close(out[0].view(2, 32), numbers.view(2, 32).sum(1, keepdim=True).expand(2, 32))
    torch.testing.assert_close(out[1], numbers.sum().expand(64))
    assert out[1].unique().numel() == 1  # the same bits in every thread
    places = torch.arange(64) % 5
    assert torch.equal(out[2], (places.cumsum(0) - places).float()) and (out[3] == places.sum()).all()


@pytest.mark.usefixtures("any_order")
def test_atomics(trial: Trial) -> None:
    out = trial("atomics", n=3)[0]
    assert out[0] == 3 * 64 and out.view(torch.int32)[1] == 2 * 3 * 64 and out.view(torch.int32)[2] == 63


@pytest.mark.usefixtures("any_order")
def test_copies_come_when_they_are_waited_for(trial: Trial) -> None:
    out = trial("copies")
    assert out[0].isnan().all() and out[2].isnan().all()
    assert torch.equal(out[1], NUMBERS.flip(0)) and torch.equal(out[3], NUMBERS.flip(0))


@pytest.mark.parametrize("count", [1, 1000, 20_000])  # 80 KB must be asked for, which launch() does
def test_dynamic_shared_memory(library: ctypes.CDLL, count: int) -> None:
    out = torch.zeros(count)
    call(library, "dynamic", out, count)
    assert torch.equal(out, torch.arange(count, dtype=torch.float32).flip(0))


def test_more_shared_memory_than_there_is(library: ctypes.CDLL) -> None:
    with pytest.raises(RuntimeError, match="more shared memory than a device of capability 90 has"):
        call(library, "dynamic", torch.zeros(1), 60_000)
    assert library.trial_last_error() == 0  # torch, asking after its own kernels, would blame them


def rounded(matrix: Tensor) -> Tensor:
    """What tensor cores read of TF32 operands: all but the lowest 13 bits."""
    return (matrix.view(torch.int32) & ~0x1FFF).view(torch.float32)


@pytest.mark.usefixtures("any_order")
@pytest.mark.parametrize("by_column", [False, True])
def test_matrix_products(library: ctypes.CDLL, by_column: bool) -> None:
    a, b = torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(1))
    b = b.T.contiguous()  # [8, 16]
    stored = b.T.contiguous() if by_column else b
    c = torch.zeros(16, 16)
    call(library, "multiply", int(by_column), a, stored, c, 0)
    exact = rounded(a).double() @ rounded(b).double()
    torch.testing.assert_close(c.double(), exact, atol=3e-6, rtol=0)
    assert (c.double() - a.double() @ b.double()).abs().max() > 1e-4  # the operands were rounded


def test_misplaced_matrices_are_an_error(library: ctypes.CDLL) -> None:
    a = torch.zeros(16, 16)
    with pytest.raises(RuntimeError, match="load_matrix_sync needs an address of whole 32 bytes"):
        call(library, "multiply", 0, a, a, a, 4)


def test_sorting(library: ctypes.CDLL) -> None:
    generator = torch.Generator().manual_seed(2)
    keys = torch.randn(500, generator=generator).round(decimals=1) + 0.05  # some equal, none zero
    places = torch.arange(500, dtype=torch.int32)
    out, order = torch.zeros(500), torch.zeros(500, dtype=torch.int32)
    library.trial_sort_float(*(ctypes.c_void_p(t.data_ptr()) for t in (keys, out, places, order)), 500)
    assert torch.equal(out, keys.sort(stable=True).values)
    assert torch.equal(order.long(), keys.argsort(stable=True))
    numbers = torch.randint(0, 2**31 - 1, (500,), generator=generator, dtype=torch.int32)
    sorted_numbers = torch.zeros(500, dtype=torch.int32)
    pointers = (ctypes.c_void_p(t.data_ptr()) for t in (numbers, sorted_numbers, places, order))
    library.trial_sort_bits(*pointers, 500, 4, 9)
    assert torch.equal(order.long(), (numbers >> 4 & 31).argsort(stable=True))
    assert torch.equal(sorted_numbers, numbers[order.long()])


def test_running_sums(library: ctypes.CDLL) -> None:
    numbers = torch.randint(0, 2**31 - 1, (100,), dtype=torch.int32)
    before, upto = torch.zeros(2, 100, dtype=torch.int64)
    library.trial_scan(*(ctypes.c_void_p(t.data_ptr()) for t in (numbers, before, upto)), 100)
    assert torch.equal(upto, numbers.long().cumsum(0)) and torch.equal(before, upto - numbers)
