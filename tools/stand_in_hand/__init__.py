"""Draws the stand-in hand that `er_jax.mano.stand_in` reads: `python -m tools.stand_in_hand`.

Around the bones (`data_pipeline.synthetic.skeleton`) lies flesh (`flesh`); a cage of quadrilaterals
(`cage`) is moved onto it (`surface`), shares of the bones are laid into the skin (`weights`), then
shapes and correctives (`deformation`); `arrays` brings all of it under MANO's own keys, and
`picture` shows it. The result depends on the machine's linear algebra in the last digits.
"""
