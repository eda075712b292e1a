# The small one, for two CPU cores: what `make demo` trains. Less of everything than config/toy_nav.py.
# $ python train.py config/toy_nav_cpu.py
# 6 minutes on 2 cores that multiply bfloat16, 9 on others; carries out 63% of unseen prompts: see the README's table.
out_dir = 'out-toy-nav-cpu'
source_weights = 'demonstrations=0.85,elites=0.15'
n_layer = 4
max_iters = 7000
eval_interval = 1000
