"""Traffic by version: rolling out, going back, revoking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from inference.registry.folder import RegistryFolder
from inference.registry.keys import SigningKey
from inference.registry.manifest import check_id
from inference.registry.refusal import ModelRefused
from inference.registry.revocation import RevocationList, Revoked, extended
from inference.registry.traffic import check_shares, without


class RollOuts:
    """Roll-outs of one registry. Every act is recorded, done or refused."""

    def __init__(self, folder: RegistryFolder) -> None:
        self._folder = folder

    def shares(self, model: str) -> dict[int, int]:
        """Traffic of each version in basis points."""
        return dict(self._folder.state().of(model).shares)

    def revoked(self, model: str) -> frozenset[int]:
        """Versions that must not be served, by any worker that has them loaded. Raises ModelRefused."""
        return frozenset(version for name, version in self._folder.revocations().pairs if name == model)

    def roll(self, model: str, shares: Mapping[int, int]) -> None:
        """Give versions their shares of traffic (basis points, 10,000 in all). Raises ModelRefused."""
        folder = self._folder
        with folder.recorder.attempt("roll", model, max(shares, default=0)) as note, folder.changing() as state:
            note.reason = _listed(shares)
            check_shares(shares)
            self._require_fresh(model, shares, floors=True)
            served = state.of(model).shares
            folder.write_state(state.changed(model, shares=dict(shares), floor=min(shares), earlier=served))

    def rollback(self, model: str) -> dict[int, int]:
        """Back to the shares before the last roll-out, the one act that lowers a pin; gives the shares in force."""
        folder = self._folder
        with folder.recorder.attempt("rollback", model) as note, folder.changing() as state:
            shares = state.of(model).earlier
            for version in self.revoked(model):
                shares = without(shares, version)
            if not shares:
                raise ModelRefused(
                    "rollout", f"{model}: expected an earlier roll-out to go back to, got none; use roll"
                )
            note.version = max(shares)
            note.reason = _listed(shares)
            # workers would not take on a version that has expired meanwhile, and the caller would think they had
            self._require_fresh(model, shares, floors=False)
            folder.write_state(state.changed(model, shares=shares, floor=min(shares), earlier={}))
            return dict(shares)

    def revoke(self, model: str, version: int, reason: str, keys: Sequence[SigningKey]) -> RevocationList:
        """Issue the next revocation list; the version's traffic goes to the latest other. Raises ModelRefused."""
        folder = self._folder
        with folder.recorder.attempt("revoke", model, version) as note, folder.changing() as state:
            note.reason = reason[:512]
            check_id(model)
            issue = extended(folder.revocations(), Revoked(model, version, reason[:512]), folder.now)
            folder.write_revocations(issue, list(keys))
            state = msgspec.structs.replace(state, revocations=issue.sequence)
            if model in state.models:
                current = state.of(model)
                shares, earlier = without(current.shares, version), without(current.earlier, version)
                state = state.changed(model, shares=shares, earlier=earlier)
            folder.write_state(state)
            return issue

    def _require_fresh(self, model: str, shares: Mapping[int, int], *, floors: bool) -> None:
        """Raise ModelRefused unless each version is here and may be served."""
        freshness = self._folder.freshness(floors=floors)
        for version in shares:
            self._folder.require(model, version)
            manifest, _ = self._folder.manifest(model, version)
            freshness.check(manifest)


def _listed(shares: Mapping[int, int]) -> str:
    return ",".join(f"{version}={share}" for version, share in sorted(shares.items()))
