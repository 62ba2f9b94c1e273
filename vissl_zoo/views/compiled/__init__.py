"""Views on a CPU in code that numba compiles; `vissl_zoo.views.threads` imports it when it is first needed."""
