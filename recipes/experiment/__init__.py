"""A whole experiment out of one folder of YAML files, and what it will take before it is begun.

python -m recipes.experiment recipes/gsm8k_r1_distill_qwen_7b --plan
python -m recipes.experiment recipes/gsm8k_r1_distill_qwen_7b --gpus 8 --push_to you
"""
