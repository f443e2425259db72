"""Tells ``twistd`` that there is a command called ``regd``."""

from twisted.application.service import ServiceMaker

regd = ServiceMaker("regd", "regd.service", "A container registry daemon.", "regd")
