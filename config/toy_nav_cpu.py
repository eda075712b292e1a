# The small one, for two CPU cores: what `make demo` trains. Less of everything than config/toy_nav.py.
# $ python train.py config/toy_nav_cpu.py
# 7 minutes on 2 cores that multiply bfloat16, longer on others; carries out 24% of unseen prompts: README.md
out_dir = 'out-toy-nav-cpu'
source_weights = 'demonstrations=0.85,elites=0.15'
n_layer = 4
max_iters = 7000
eval_interval = 1000
