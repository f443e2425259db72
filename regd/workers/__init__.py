"""
Several processes that serve one registry, and what is between them and the one that ``twistd`` runs, their parent.

The parent owns the listening sockets. It accepts connections and hands each to the worker that has the fewest
(:mod:`~regd.workers.spread`), over a channel of its own (:mod:`~regd.workers.channel`). A second socket between them is for everything that
is said (:mod:`~regd.workers.control`). Workers are started and replaced by Twisted's ``procmon`` (:mod:`~regd.workers.children`);
:mod:`~regd.workers.group` is all of it together.
"""
