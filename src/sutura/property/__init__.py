"""Properties: what they say, and reading, writing and building them."""

from sutura.property.build import argmax_in as argmax_in
from sutura.property.build import argmax_not_in as argmax_not_in
from sutura.property.build import argmin_in as argmin_in
from sutura.property.build import argmin_not_in as argmin_not_in
from sutura.property.build import box as box
from sutura.property.build import output_bound as output_bound
from sutura.property.build import robustness as robustness
from sutura.property.read import read_property as read_property
from sutura.property.spec import Box as Box
from sutura.property.spec import Case as Case
from sutura.property.spec import Conjunction as Conjunction
from sutura.property.spec import Inequality as Inequality
from sutura.property.spec import Property as Property
from sutura.property.spec import unsafe_mask as unsafe_mask
from sutura.property.spec import violates as violates
from sutura.property.write import write as write
