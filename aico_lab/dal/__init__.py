"""Data access, independent of the domain: SQL from async code on pooled connections."""

from aico_lab.dal.access import DataAccessLayer
from aico_lab.dal.connection import PooledConnection
from aico_lab.dal.pool import ConnectionPool

__all__ = ["ConnectionPool", "DataAccessLayer", "PooledConnection"]
