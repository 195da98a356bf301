"""The KV connector that vLLM loads: states of chosen layers and tokens, pooled on the worker, one file a request.

vLLM keeps each token's states of the layers in `eagle_aux_hidden_state_layer_ids` in a cache of their own (speculative
method `extract_hidden_states`). In the step that completes a prompt, once those are in the cache, the worker of rank 0
gathers the request's blocks, pools, and publishes the file; the answer names it, so no block is held and no lock taken.
Written for vLLM 0.32. Clients say which tokens; the folder is the connector's own, names are digests of request ids.
"""

# vLLM is not in the environment in which this is checked.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

import fcntl
import logging
import os
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from vllm import __version__ as vllm_version
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
    SupportsHMA,
)
from vllm.distributed.parallel_state import get_tensor_model_parallel_rank
from vllm.v1.request import RequestStatus

from sur.models.fingerprint import weights_fingerprint
from sur.models.vllm.final_norm import final_norm
from sur.models.vllm.protocol import (
    ABOUT,
    FAILED,
    KEY,
    VERSION,
    ServerInfo,
    StatesRequest,
    file_name,
    is_ours,
    pool_states,
    publish_failure,
    publish_states,
)

if TYPE_CHECKING:
    from vllm.config import VllmConfig

logger = logging.getLogger("vllm.sur")

KEEP_SECONDS = 600.0  # a file that nobody fetched, because its client died
SWEEP_SECONDS = 60.0


@dataclass(frozen=True)
class _Job:
    """A request whose prompt this step completes."""

    request_id: str
    ids: list[int]
    blocks: list[int]
    asked: StatesRequest


@dataclass
class _Step(KVConnectorMetadata):
    """The scheduler's message to the worker about one step."""

    jobs: list[_Job] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)


class HiddenStates(KVConnectorBase_V1, SupportsHMA):
    """Serves hidden states; extra config: `exchange`, the folder of the files, which clients must be able to reach."""

    def __init__(self, vllm_config: VllmConfig, role: KVConnectorRole, kv_cache_config: Any = None) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        speculative = vllm_config.speculative_config
        if speculative is None or speculative.method != "extract_hidden_states":
            raise ValueError("HiddenStates needs --speculative-config with the method extract_hidden_states")
        if vllm_config.parallel_config.pipeline_parallel_size > 1:
            raise ValueError("HiddenStates does not know which of several pipeline stages holds a layer; use -tp")
        _refuse_what_changes_numbers(vllm_config)
        self._layers = tuple(speculative.draft_model_config.hf_config.eagle_aux_hidden_state_layer_ids)
        self._exchange = Path(self._kv_transfer_config.get_from_extra_config("exchange", "")).absolute()
        if not self._kv_transfer_config.get_from_extra_config("exchange", ""):
            raise ValueError("HiddenStates needs kv_connector_extra_config with `exchange`, a folder of its own")
        self._exchange.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._group = _group_of_states(kv_cache_config)
        model = vllm_config.model_config
        self._folder = _model_folder(model.model, model.revision)
        self._count = model.get_total_num_hidden_layers()
        self._dtype = model.dtype
        if role == KVConnectorRole.SCHEDULER:
            self._instance = uuid.uuid4().hex
            self._lock = _own(self._exchange)
            _sweep(self._exchange, 0.0)
            self._asked: dict[str, tuple[Any, StatesRequest]] = {}
            self._answers: dict[str, dict[str, Any]] = {}
            self._dropped: list[str] = []
            self._about = self._describe(vllm_config)
        else:
            self._states: torch.Tensor | None = None
            self._norm: torch.nn.Module | None = None
            self._writes = False
            self._cached = False
            self._swept = 0.0

    # The scheduler's side.

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int, bool]:
        """Nothing is ever loaded."""
        return 0, False

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        """Remember what a request that is about to run asks for."""
        params = (request.kv_transfer_params or {}).get(KEY)
        if params is None or request.request_id in self._answers:
            return
        try:
            asked = StatesRequest.read(params)
            missing = sorted(set(asked.layers) - set(self._layers))
            if missing:
                raise ValueError(f"layers {missing} are not served; those that are: {list(self._layers)}")
            if not request.prompt_token_ids or asked.stop > len(request.prompt_token_ids):
                raise ValueError(f"tokens up to {asked.stop} asked, {len(request.prompt_token_ids or ())} given")
        except (ValueError, TypeError) as error:
            self._answers[request.request_id] = {"error": str(error)}
            return
        self._asked[request.request_id] = (request, asked)

    def build_connector_meta(self, scheduler_output: Any) -> _Step:
        """The requests whose last prompt tokens are computed in this step, however many steps there were before."""
        step = _Step(dropped=self._dropped)
        self._dropped = []
        for request_id, scheduled in scheduler_output.num_scheduled_tokens.items():
            request, asked = self._asked.get(request_id, (None, None))
            if request is None or asked is None or request.num_computed_tokens + scheduled < request.num_prompt_tokens:
                continue
            blocks = scheduler_output.kv_connector_block_state.get_block_ids(request_id)[self._group]
            step.jobs.append(_Job(request_id, list(request.prompt_token_ids), list(blocks), asked))
            self._answers[request_id] = {"file": file_name(request_id)}
            del self._asked[request_id]
        return step

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        """The answer to the client; blocks may be freed at once."""
        self._asked.pop(request.request_id, None)
        answer = self._answers.pop(request.request_id, None)
        if request.status == RequestStatus.FINISHED_ABORTED:
            if answer is not None and "file" in answer:
                self._dropped.append(answer["file"])
            return False, None
        content = {**(answer or {}), "instance": self._instance}
        if ABOUT in (request.kv_transfer_params or {}):
            content["about"] = self._about.params()
        return False, {KEY: content}

    def request_finished_all_groups(self, request: Any, block_ids: Any) -> tuple[bool, dict[str, Any] | None]:
        """As `request_finished`, where the model has several kinds of cache."""
        return self.request_finished(request, [])

    def _describe(self, vllm_config: Any) -> ServerInfo:
        model, cache = vllm_config.model_config, vllm_config.cache_config
        return ServerInfo(
            protocol=VERSION,
            instance=self._instance,
            exchange=str(self._exchange),
            engine_version=vllm_version,
            model=str(model.model),
            weights=weights_fingerprint(self._folder),
            architecture=model.hf_config.model_type,
            compute_dtype=str(self._dtype).removeprefix("torch."),
            max_model_len=model.max_model_len,
            layers=self._layers,
            prefix_caching=bool(cache.enable_prefix_caching),
            quantization=str(model.quantization or ""),
            tensor_parallel_size=vllm_config.parallel_config.tensor_parallel_size,
        )

    # The worker's side.

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        """Find the cache of the states, and the norm that the last layer's still lack."""
        self._writes = get_tensor_model_parallel_rank() == 0
        names = [name for name in kv_caches if "cache_only" in name]
        if len(names) != 1:
            raise ValueError(f"expected one cache of hidden states, found {names} in {sorted(kv_caches)}")
        self._states = kv_caches[names[0]]  # (blocks, layers, tokens of a block, dim)
        if self._states.dim() != 4 or self._states.shape[1] != len(self._layers):
            raise ValueError(
                f"the cache of hidden states has shape {tuple(self._states.shape)}, expected (blocks, "
                f"{len(self._layers)}, tokens, dim); this connector was written for vLLM 0.32, this is {vllm_version}"
            )
        if self._count in self._layers:
            self._norm = final_norm(self._folder, self._dtype).to(self._states.device)

    def start_load_kv(self, *args: Any, **kwargs: Any) -> None:
        """Nothing is loaded; a new step begins."""

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Nothing is loaded."""

    def save_kv_layer(self, layer_name: str, *args: Any, **kwargs: Any) -> None:
        """Note that this step's states are in their cache."""
        self._cached |= "cache_only" in layer_name

    @torch.inference_mode()
    def wait_for_save(self) -> None:
        """Publish the files of the prompts that this step has completed."""
        cached, self._cached = self._cached, False
        step = self._get_connector_metadata() if self.has_connector_metadata() else None
        if not self._writes or not isinstance(step, _Step):
            return
        for name in step.dropped:
            for path in (self._exchange / name, self._exchange / f"{name}{FAILED}"):
                path.unlink(missing_ok=True)
        if step.jobs and not cached:
            logger.error("vLLM kept no states in this step, of %d prompts", len(step.jobs))
            return
        for job in step.jobs:
            try:
                publish_states(
                    self._exchange, file_name(job.request_id), pool_states(self._gather(job), job.asked), job.ids
                )
            except Exception as error:  # the engine has to live on for everybody else
                logger.error("no states of %s in %s: %r", job.request_id, self._exchange, error)
                with suppress(OSError):
                    publish_failure(self._exchange, file_name(job.request_id), repr(error))
        if time.monotonic() - self._swept > SWEEP_SECONDS:
            self._swept = time.monotonic()
            _sweep(self._exchange, KEEP_SECONDS)

    def shutdown(self) -> None:
        """Leave no file behind."""
        if self.role == KVConnectorRole.WORKER and self._writes:
            _sweep(self._exchange, 0.0)

    def _gather(self, job: _Job) -> torch.Tensor:
        """States of a prompt, (tokens, asked layers, dim), the last layer's normed."""
        assert self._states is not None
        blocks = torch.tensor(job.blocks, device=self._states.device)
        columns = [self._states[:, self._layers.index(layer)][blocks] for layer in job.asked.layers]
        states = torch.stack(columns, dim=2).flatten(0, 1)[: len(job.ids)]
        if len(states) != len(job.ids):
            raise ValueError(f"{len(states)} states for {len(job.ids)} tokens")
        if self._count in job.asked.layers:
            assert self._norm is not None
            last = job.asked.layers.index(self._count)
            states[:, last] = self._norm(states[:, last])
        return states

    @classmethod
    def get_required_kvcache_layout(cls, vllm_config: Any) -> str:
        """A token's states side by side."""
        return "LBNHC"


def _own(folder: Path) -> int:
    """Lock the folder for this process's life. Raises ValueError when another server has it: files would mix."""
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise ValueError(f"another server hands over states through {folder}: give this one a folder of its own "
                         "(`exchange` of kv_connector_extra_config; `sur serve --exchange`)") from None  # fmt: skip
    except OSError as error:  # a file system without locks
        logger.warning("cannot lock %s (%s): make sure that no other server uses it", folder, error)
    return lock


def _sweep(folder: Path, seconds: float) -> None:
    """Remove files that have lain so long; nothing else in the folder is touched."""
    now = time.time()
    for entry in os.scandir(folder):
        with suppress(FileNotFoundError):  # its client has just taken it
            if is_ours(entry.name) and now - entry.stat().st_mtime >= seconds:
                os.unlink(entry.path)


def _refuse_what_changes_numbers(vllm_config: Any) -> None:
    """Raises ValueError for server options that change the states, which no check of the client would notice."""
    model, cache = vllm_config.model_config, vllm_config.cache_config
    refused = {
        "--kv-cache-dtype": cache.cache_dtype not in ("auto", str(model.dtype).removeprefix("torch.")),
        "--hf-overrides": bool(getattr(model, "hf_overrides", None)),
        "--load-format": str(vllm_config.load_config.load_format) not in ("auto", "safetensors"),
        "--enable-lora": vllm_config.lora_config is not None,
        "--data-parallel-size": vllm_config.parallel_config.data_parallel_size > 1,
    }
    if wrong := [option for option, given in refused.items() if given]:
        raise ValueError(f"HiddenStates does not serve with {', '.join(wrong)}: start the server without")


def _group_of_states(kv_cache_config: Any) -> int:
    """Which group of cache layers holds the hidden states."""
    if kv_cache_config is None:
        return 0
    for number, group in enumerate(kv_cache_config.kv_cache_groups):
        if any("cache_only" in name for name in group.layer_names):
            return number
    raise ValueError("vLLM has made no cache of hidden states")


def _model_folder(model: str, revision: str | None) -> Path:
    """Where the model's files lie."""
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(model, revision=revision, local_files_only=True))
