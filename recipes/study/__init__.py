"""Does pruning do what it claims? One reasoner, everything a user would try to make it brief, one table.

python -m recipes.study                      # every arm, three seeds; goes on where it stopped
python -m recipes.study --arms 5_drp 2_right --seeds 0
python -m recipes.study.table                # the table and the plot, from the results in the repository
"""
