"""The exact checker of repair certificates: this folder, Python's standard library, whole numbers only.

    python exact FIXED.onnx PROP.vnnlib [...] FIXED.cert.json [--sample=K] [--workers=N] [--json]

It re-proves a certificate (docs/certificate.md) for every IEEE 754 binary32 execution of a network: any order
of summation, fused or not, subnormals kept or flushed. Every finite float32 number is a whole number of
ticks of 2^-149, so weights, boxes and thresholds enter exactly. What has no rule is refused where a leaf
needs a bound. To read it: ticks, graph (the ONNX file), vnnlib (the properties), gates and delivered (what a
gate guarantees), layers and bound (what the network computes), proof (the certificate).
"""

from .proof import check as check
