"""Every single-byte change of small certificates, and random changes of a larger one: refused, or re-proved.

Certificates carry a digest, so most changes fall at once. Here each change is also made with the digest
put right again, as a forger would: then it may be accepted only by a full proof of the same claim.
"""

from __future__ import annotations

import base64
import hashlib
import json

import numpy as np
import pytest
from exported import (
    LEANING_COUNTS,
    LEANING_TREE,
    ORDER_PROPERTY,
    certificate,
    dense,
    leaning,
    leaning_rows,
    leaning_weights,
)

from sutura.certificate import exact
from sutura.certificate.check import check
from sutura.certificate.schema import Counts
from sutura.certificate.tree import LEAF, Split

HARMLESS = {"tool", "original"}
"""Keys that say where a certificate comes from; no proof speaks of them."""


def cut(depth, low, high, rng):
    """A random tree over the cell between two corners."""
    dim = int(rng.integers(len(low)))
    at = float(np.float32(rng.uniform(max(low[dim], -2), min(high[dim], 2))))
    if depth == 0 or not low[dim] <= at < high[dim]:
        return [LEAF]
    left, right = list(high), list(low)
    left[dim], right[dim] = at, float(np.nextafter(np.float32(at), np.float32(9)))
    return [Split(dim, at), *cut(depth - 1, low, left, rng), *cut(depth - 1, right, high, rng)]


def twenty():
    """Twenty small networks and certificates that are accepted."""
    found = [(leaning().save(), LEANING_TREE, LEANING_COUNTS, ORDER_PROPERTY)]
    found.append((leaning_rows().save(), LEANING_TREE, LEANING_COUNTS, ORDER_PROPERTY))
    plain = dense(leaning_weights()).save()
    for k in range(18):
        narrow = ORDER_PROPERTY.replace(b"X_0 1.0", b"X_0 %.3f" % (0.3 - 0.02 * k))
        at = float(np.float32(-0.9 + 0.05 * k))
        nodes = (Split(k % 2, at), LEAF, LEAF) if k % 3 else (LEAF,)
        leaves = 2 if k % 3 else 1
        found.append((plain, nodes, Counts(leaves, leaves, 0, 0, 1), narrow))
    return found


def resigned(data):
    """The certificate with its digest put right, in canonical form; None where it is no JSON object."""
    try:
        document = json.loads(data)
        del document["digest"]
    except (ValueError, TypeError, KeyError):
        return None

    def canonical(thing):
        return json.dumps(thing, sort_keys=True, separators=(",", ":")).encode()

    document["digest"] = hashlib.sha256(canonical(document)).hexdigest()
    return canonical(document)


def same_claim(before, after):
    """Whether two certificates differ only in what no proof speaks of, or in a tree proved as well."""
    old, new = json.loads(before), json.loads(after)
    names = [[entry.pop("name") for entry in side["properties"]] for side in (old, new)]
    changed = {key for key in old if old[key] != new[key]} - HARMLESS - {"digest"}
    return changed <= {"tree"} and len(names[0]) == len(names[1])


@pytest.mark.parametrize("number", range(20))
def test_every_byte_of_a_small_certificate(number):
    network, nodes, counts, text = twenty()[number]
    written = certificate(network, [text], nodes, counts)
    assert check(network, [text], written).accepted
    for place in range(len(written)):
        changed = bytearray(written)
        changed[place] ^= 1 << place % 7
        assert not check(network, [text], bytes(changed)).accepted, place
        forged = resigned(bytes(changed))
        if forged is None or forged == written:
            continue
        report = check(network, [text], forged)
        accepted, reason = exact.check([network, text, forged])
        assert accepted == report.accepted, (place, reason, report.reason)
        assert not accepted or same_claim(written, forged), (place, forged)


def larger():
    """A partition of some sixty cells over the gated network."""
    rng = np.random.default_rng(4)
    network, text = leaning().save(), ORDER_PROPERTY
    nodes = [Split(0, 0.0), LEAF, *cut(6, [float(np.float32(1e-30)), -np.inf], [np.inf, np.inf], rng)]
    found = check(network, [text], certificate(network, [text], nodes, Counts(1, 1, 0, 0, 2)))
    return network, text, certificate(network, [text], nodes, counted(found.reason))


def counted(reason):
    """The counts that the checker says it found."""
    fields = reason.split("but found Counts(")[1].rstrip(")").split(", ")
    return Counts(**{key: int(value) for key, value in (field.split("=") for field in fields)})


def test_a_thousand_random_changes_of_a_larger_certificate():
    network, text, written = larger()
    assert check(network, [text], written).accepted
    rng = np.random.default_rng(5)
    document = json.loads(written)
    tree = base64.b64decode(document["tree"])
    reproved = 0
    for _ in range(1000):
        changed = bytearray(tree)
        for _ in range(int(rng.integers(1, 4))):
            kind, at = rng.integers(3), int(rng.integers(len(changed)))
            if kind == 0:
                changed[at] ^= 1 << int(rng.integers(8))
            elif kind == 1:
                del changed[at]
            else:
                changed.insert(at, int(rng.integers(256)))
        forged = resigned(json.dumps(document | {"tree": base64.b64encode(bytes(changed)).decode()}))
        if forged == written:
            continue
        report = check(network, [text], forged)
        accepted, reason = exact.check([network, text, forged])
        assert accepted == report.accepted, (reason, report.reason)
        reproved += accepted
    assert reproved < 500


def test_trees_of_other_shapes_are_proved_again_or_refused():
    network = leaning().save()
    rng = np.random.default_rng(6)
    for _ in range(40):
        nodes = cut(4, [-np.inf, -np.inf], [np.inf, np.inf], rng)
        written = certificate(network, [ORDER_PROPERTY], nodes, LEANING_COUNTS)
        report = check(network, [ORDER_PROPERTY], written)
        assert exact.check([network, ORDER_PROPERTY, written])[0] == report.accepted
