"""
The types behind `@step`: how a function must fit the undo and the probe that are given for it.

None of this runs. A function is assignable to a protocol with two overloads only if it is
assignable to each. So `Fits` says of a step both what it is and what else it must be, and the step
keeps a result of its own however much wider a result its undo takes.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from ._step import Step

P = ParamSpec("P")
Q = ParamSpec("Q")
U = ParamSpec("U")
R = TypeVar("R")
V = TypeVar("V")
R_co = TypeVar("R_co", covariant=True)
T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)


class Fits(Protocol[P, R_co, T_co]):
    """A function `P -> R`, where an R is a T."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(  # type: ignore[overload-cannot-match]
        self, *args: P.args, **kwargs: P.kwargs
    ) -> T_co: ...


class FitsBoth(Protocol[Q, U, R_co]):
    """A function `Q -> R` that could also be called as `U -> R`."""

    @overload
    def __call__(self, *args: Q.args, **kwargs: Q.kwargs) -> R_co: ...
    @overload
    def __call__(self, *args: U.args, **kwargs: U.kwargs) -> R_co: ...


class OfAttempted(Protocol[T_contra, U, R_co]):
    """An undo that takes a result, and None as well."""

    @overload
    def __call__(self, result: T_contra, /, *args: U.args, **kwargs: U.kwargs) -> R_co: ...
    @overload
    def __call__(self, result: None, /, *args: U.args, **kwargs: U.kwargs) -> R_co: ...


class Undone(Protocol[T_contra, U]):
    """
    A decorator for a step with a plain undo, or with none.

    `U` are the parameters that the undo takes after the result, which is a `T`. Where there are
    none, those of the step are free.
    """

    @overload
    def __call__(
        self: Undone[T_contra, []],
        fn: Fits[P, Coroutine[Any, Any, R], Coroutine[Any, Any, T_contra]],
        /,
    ) -> Step[P, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self: Undone[T_contra, []], fn: Fits[P, R, T_contra], /) -> Step[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(
        self, fn: Fits[U, Coroutine[Any, Any, R], Coroutine[Any, Any, T_contra]], /
    ) -> Step[U, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, fn: Fits[U, R, T_contra], /) -> Step[U, R]: ...


class UndoneOnLoop(Protocol[T_contra, U]):
    """A decorator for an async step with an async undo."""

    @overload
    def __call__(
        self: UndoneOnLoop[T_contra, []],
        fn: Fits[P, Coroutine[Any, Any, R], Coroutine[Any, Any, T_contra]],
        /,
    ) -> Step[P, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(
        self, fn: Fits[U, Coroutine[Any, Any, R], Coroutine[Any, Any, T_contra]], /
    ) -> Step[U, Coroutine[Any, Any, R]]: ...


class Probed(Protocol[V, U, Q]):
    """
    A decorator for a step with a plain probe, and a plain undo or none.

    `Q` are the parameters of the probe, and so those of the step; what it finds is a `V`. The
    result of the step is one too, since a replay may get it from either.
    """

    @overload
    def __call__(
        self: Probed[V, [], Q], fn: Callable[Q, Coroutine[Any, Any, V]], /
    ) -> Step[Q, Coroutine[Any, Any, V]]: ...
    @overload
    def __call__(self: Probed[V, [], Q], fn: Callable[Q, V], /) -> Step[Q, V]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(
        self, fn: FitsBoth[Q, U, Coroutine[Any, Any, V]], /
    ) -> Step[Q, Coroutine[Any, Any, V]]: ...
    @overload
    def __call__(self, fn: FitsBoth[Q, U, V], /) -> Step[Q, V]: ...


class ProbedOnLoop(Protocol[V, U, Q]):
    """A decorator for an async step with a probe and an undo of which one at least is async."""

    @overload
    def __call__(
        self: ProbedOnLoop[V, [], Q], fn: Callable[Q, Coroutine[Any, Any, V]], /
    ) -> Step[Q, Coroutine[Any, Any, V]]: ...
    @overload
    def __call__(
        self, fn: FitsBoth[Q, U, Coroutine[Any, Any, V]], /
    ) -> Step[Q, Coroutine[Any, Any, V]]: ...
