"""Documents of ``control`` say who exists, with which keys and limits. They are validated once, on arrival.

A document's version is its offset. The topic is the full history, so the documents in force at any version can be
folded again. Secrets in it are wrapped by the keyring; plaintext never enters this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from detectors.accounts.response import Step
from detectors.personal import TECHNICAL
from pipeline.errors import ConfigError, Malformed
from pipeline.events.deployment import Deployment, Operator, RootKey
from pipeline.events.document import Document, Id
from pipeline.events.records import Meter, Unit
from pipeline.events.wrapped import FORMER_FIELDS, Former, Wrapped

__all__ = [
    "AnyDocument",
    "Control",
    "Deployment",
    "Document",
    "Id",
    "Key",
    "Limit",
    "Model",
    "ModelId",
    "Operator",
    "Organisation",
    "Plan",
    "Price",
    "Principal",
    "RootKey",
    "Tenant",
    "parse",
]
ModelId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,126}$")]


class Limit(Document):
    """A limit is one ceiling, known by its scope, id, meter and unit: a changed amount or period goes on counting.

    ``rate`` is a leaky bucket with burst; ``window`` an exact sliding log (requests only, at most 1,000); ``budget`` a
    calendar period; ``open`` what is reserved at one moment.
    """

    id: Id
    meter: Meter
    unit: Unit = "requests"
    amount: Annotated[int, Field(ge=1, le=2**36 - 1)]
    """Units; of ``cost``: millionths of the currency that the prices of models are in."""
    period_s: Annotated[int, Field(ge=1, le=366 * 86400)] = 60
    """Of a budget: 86400, 604800 and 2592000 mean a day, a week and a month; others are blocks since 1970."""
    period: Literal["day", "week", "month"] | None = None
    """budget only, in the place of ``period_s``: from midnight, from Monday, or from the first of the month."""
    burst: Annotated[int, Field(ge=0, le=2**36 - 1)] = 0
    """rate only: most units at one instant; 0 means ``amount``."""

    @model_validator(mode="after")
    def _one_period(self) -> Limit:
        # documents are stored with their defaults
        if self.period is not None and (self.meter != "budget" or self.period_s != 60):
            raise ValueError("expected period in a budget alone and without period_s; leave one of them out")
        return self


class Plan(Document):
    _LATER = frozenset({"kafka_bytes_per_s"})
    doc: Literal["plan"] = "plan"
    id: Id
    organisation: tuple[Limit, ...] = ()
    tenant: tuple[Limit, ...] = ()
    principal: tuple[Limit, ...] = ()
    key: tuple[Limit, ...] = ()
    model: dict[Annotated[str, Field(pattern=r"^(\*|[A-Za-z0-9][A-Za-z0-9._:/-]{0,126})$")], tuple[Limit, ...]] = Field(
        {}
    )
    """Limits over what each tenant asks of one model, by the model's id; ``*`` holds for every model by itself."""
    utc_offset: Annotated[int, Field(ge=-720, le=840)] = 0
    """Minutes by which the days, weeks and months of budgets are ahead of UTC; the same all year."""
    models: tuple[str, ...] = ()
    max_tokens: int = 256
    max_input_bytes: int = 16_384
    block_severity: Annotated[int, Field(ge=1, le=5)] = 3
    """Findings of at least this severity are refused; 5 refuses none."""
    block_confidence: Annotated[int, Field(ge=0, le=100)] = 0
    """The tenant's own threshold in percent: a scored finding is refused from here on at any severity; 0 none."""
    shadow: bool = False
    """Findings refuse nothing; every decision says what they would have refused."""
    unscreened: Literal["refuse", "admit"] = "refuse"
    """What becomes of a prompt that no detector could read to its end."""
    blank: Annotated[tuple[str, ...], Field(max_length=16)] = ()
    """Beginnings of rule ids (``injection.``, ``pii.``): what such a rule found in a prompt that is admitted all the
    same is replaced by a visible marker before the model reads it."""
    documents: Literal["neutralise", "blank", "refuse"] = "neutralise"
    """What becomes of a request with a document that holds orders to the model: the passage is quoted and marked as
    data, replaced by a marker, or the request is refused like one whose own words are an attack."""
    output: Literal["release", "redact", "withhold", "review"] = "redact"
    """Personal data and secrets in answers: let out, taken out as they stream, end the answer, or put to analysts."""
    personal: Literal["structured", "all"] = "structured"
    """What counts as personal in ``output`` and ``blank``: what has a form of its own, or names, addresses and the like
    too, for which a streamed answer waits by the sentence."""
    personal_off: Annotated[tuple[str, ...], Field(max_length=32)] = TECHNICAL
    """Types that do not count and stay as they are, such as ``MAC``; by default those of technical values."""
    verbatim: Literal["release", "redact", "withhold", "review"] = "redact"
    """Runs of the operator's protected texts (``generate.protected``) in answers, likewise."""
    system_prompt: Literal["release", "redact", "withhold", "review"] = "review"
    """Runs of the caller's own system prompt, and the tenant's canary, in answers, likewise."""
    keep_texts: Literal["none", "findings", "all"] = "findings"
    extraction: Step = "observe"
    """The farthest step at which an account that copies the model is answered; ``observe`` only tells."""
    account_rate: Annotated[int, Field(ge=1, le=2**36 - 1)] = 60
    """Requests a minute of which an account keeps a share at each step from ``throttle`` on."""
    top_logprobs: Annotated[int, Field(ge=-1, le=5)] = -1
    """Log-probabilities told beside each token's own; 0: its own alone, -1: none at all."""
    logit_bias: bool = False
    """Whether a request may bend the logits of tokens."""
    isolation: Literal["shared", "process", "device"] = "shared"
    """Who runs the tenants' requests: the shared workers, or for each tenant workers of its own, which nobody else's
    work ever reaches; ``device``: on a device of their own as well."""
    kafka_bytes_per_s: Annotated[int, Field(ge=1024, le=2**40)] = 2**20
    """Bytes a second that each direct producer may write to each broker; what comes faster is held up."""
    weight: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Share of service among tenants that wait for one worker, against 100; the risk of a request lowers it."""

    def scopes(self) -> dict[str, tuple[Limit, ...]]:
        """Give the limits by the scope that an operator knows them by, from the widest to the narrowest."""
        models = {f"model.{name}": limits for name, limits in {"*": (), **self.model}.items()}
        wide: dict[str, tuple[Limit, ...]] = {"organisation": self.organisation, "tenant": self.tenant}
        return {**wide, **models, "principal": self.principal, "key": self.key}


class Organisation(Document):
    doc: Literal["organisation"] = "organisation"
    id: Id
    plan: Id | None = None


class Tenant(Document):
    _LATER = frozenset({"next_data_key", "next_hpke_private", *FORMER_FIELDS})
    doc: Literal["tenant"] = "tenant"
    id: Id
    organisation: Id
    plan: Id
    status: Literal["active", "suspended"] = "active"
    data_key: Wrapped
    hpke_public: Annotated[str, Field(max_length=64, description="base64 of 32 bytes")]
    hpke_private: Wrapped
    webhook: Annotated[str, Field(max_length=512)] = ""
    webhook_secret: Wrapped = ""
    calibrated: Annotated[int, Field(ge=0)] = 0
    """When somebody accepted what the tenant's own traffic would have raised as copying, Unix ms; 0: nobody has, and
    its plan's ``extraction`` does not act yet."""
    next_data_key: Wrapped = ""
    next_hpke_private: Wrapped = ""
    """Readers open with these already; nothing is sealed under them before they take the place of those in use."""
    former_data_keys: Former = ()
    former_hpke_keys: Former = ()
    former_webhook_secrets: Former = ()


class Principal(Document):
    doc: Literal["principal"] = "principal"
    id: Id
    tenant: Id
    extraction: Literal["judged", "cleared", "confirmed"] = "judged"
    """What an analyst knows of the account: it copies no model, whatever it looks like, or it does, and is blocked."""


class Key(Document):
    _LATER = frozenset({"kafka_user", "bound"})
    doc: Literal["key"] = "key"
    id: Id
    principal: Id
    secret: Wrapped
    status: Literal["active", "revoked"] = "active"
    expires: int = 0
    """Unix ms; 0 never."""
    kafka_user: Annotated[str, Field(max_length=255)] = ""
    """The brokers know the bearer, who writes records itself, by this name: the key's id, or one that the service gave.
    Empty: the key is for the gateway alone."""
    bound: bool = False
    """The secret opens for this key, principal and tenant together; one of before opens for the key's id alone."""


class Price(Document):
    """A million tokens cost so much, in millionths of a currency: 2.50 for a million is 2,500,000."""

    input: Annotated[int, Field(ge=0, le=2**40)]
    output: Annotated[int, Field(ge=0, le=2**40)]


class Model(Document):
    doc: Literal["model"] = "model"
    id: ModelId
    context: Annotated[int, Field(ge=16)]
    version: str = "1"
    tenant: Id | None = None
    """Whose adapter it is: nobody else may ask for it, or learn of it, and this tenant where its plan has ``base``."""
    base: ModelId | None = None
    """The model whose weights the adapter changes; what is asked of it goes to the workers of this one."""
    adapter: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")] | None = None
    """The adapter's id in the model registry."""
    price: Price | None = None
    """An adapter without one has its base's; a request to a model without one is refused by limits in ``cost``."""
    margin: Annotated[int, Field(ge=0, le=1000)] | None = None
    """Only for a model of another's server, whose tokens are estimated here: percent reserved on top of the estimated
    prompt. Usage above what was reserved is charged in full."""

    @model_validator(mode="after")
    def _whole(self) -> Model:
        if len({self.tenant is None, self.base is None, self.adapter is None}) != 1:
            raise ValueError("expected tenant, base and adapter together, or none of them")
        return self


AnyDocument = Annotated[Plan | Organisation | Tenant | Principal | Key | Model | Deployment, Field(discriminator="doc")]
_adapter: TypeAdapter[AnyDocument] = TypeAdapter(AnyDocument)


def parse(raw: bytes) -> AnyDocument:
    """Read one document. Raises Malformed, naming fields but no values."""
    try:
        return _adapter.validate_json(raw)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
        raise Malformed(f"control document: {faults}") from None


class Control:
    """These documents are in force at ``version``."""

    def __init__(self) -> None:
        self.version = -1
        self.deployment: Deployment | None = None
        self.plans: dict[str, Plan] = {}
        self.organisations: dict[str, Organisation] = {}
        self.tenants: dict[str, Tenant] = {}
        self.principals: dict[str, Principal] = {}
        self.keys: dict[str, Key] = {}
        self.models: dict[str, Model] = {}
        self.derived: dict[str, Any] = {}
        """What readers worked out from the documents in force, by their own names; emptied when one changes."""

    def apply(self, version: int, document: AnyDocument) -> None:
        """Fold one document in; ``version`` is its offset in ``control``."""
        match document:
            case Plan():
                self.plans[document.id] = document
            case Organisation():
                self.organisations[document.id] = document
            case Tenant():
                self.tenants[document.id] = document
            case Principal():
                self.principals[document.id] = document
            case Key():
                self.keys[document.id] = document
            case Model():
                self.models[document.id] = document
            case Deployment():
                self.deployment = document
        self.derived.clear()
        self.version = version

    def current(self, document: AnyDocument) -> AnyDocument | None:
        """Give the document in force of the same kind and id."""
        kinds: dict[str, Mapping[str, AnyDocument]] = {
            "plan": self.plans,
            "organisation": self.organisations,
            "tenant": self.tenants,
            "principal": self.principals,
            "key": self.keys,
            "model": self.models,
        }
        return kinds[document.doc].get(document.id) if document.doc in kinds else self.deployment

    def clear(self) -> None:
        """Forget every document, for readers that hold this object as well."""
        self.deployment = None
        for documents in (self.plans, self.organisations, self.tenants, self.principals, self.keys, self.models):
            documents.clear()
        self.derived.clear()

    def skip(self, version: int) -> None:
        """Count a record of ``control`` that carries no valid document as a version."""
        self.version = version

    @property
    def generation(self) -> str:
        return self.require_deployment().generation

    def require_deployment(self) -> Deployment:
        if self.deployment is None:
            raise ConfigError("control holds no deployment document; run: sluice topics apply")
        return self.deployment
