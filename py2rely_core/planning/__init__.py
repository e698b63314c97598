"""What every step of a run will do, before the first one begins: pure functions of recipe, data and machine.

Entry: :func:`plan.plan_dataset`; `resources` adds the memory, `groups` and `binds` what many tilt series and containers
need.
"""
