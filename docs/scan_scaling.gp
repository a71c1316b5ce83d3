# The picture of a scan's time in docs/performance.md. Figures of one run of build/bin/attnscope-bench-scan-scaling (up to 16384) and of
# attnscope-long-context (131072), Intel Xeon (Emerald Rapids).
#   gnuplot docs/scan_scaling.gp > docs/scan_scaling.svg
set terminal svg size 760,400 background '#ffffff' font 'Helvetica,13'
$figures << EOD
# L     d=64: 1 thread, 2 threads, output on 1, output on 2; d=128: 1 thread
256     4.47  3.00   8.14  5.04   6.27
1024    2.72  1.54   3.88  2.57   3.85
4096    2.01  1.26   4.07  1.92   3.08
16384   2.09  1.02   3.25  1.66   2.76
131072  1.91  1.04   2.98  1.54   NaN
EOD
set xlabel 'tokens L of a causal head'
set ylabel 'ns for each visible pair'
set logscale x 2
set xrange [200:170000]
set xtics ('256' 256, '1024' 1024, '4096' 4096, '16384' 16384, '131072' 131072)
set yrange [0:9]
set key top right reverse Left samplen 2 spacing 1.15
set border 3 lc rgb '#555555'
set tics nomirror
set grid lc rgb '#dddddd' lt 1
plot $figures using 1:4 with linespoints pt 7 ps 0.6 lw 2 lc rgb '#cc3311' title 'with the output, 1 thread', \
     '' using 1:6 with linespoints pt 7 ps 0.6 lw 2 lc rgb '#999933' title 'statistics, d = 128, 1 thread', \
     '' using 1:2 with linespoints pt 7 ps 0.6 lw 2 lc rgb '#4477aa' title 'statistics, d = 64, 1 thread', \
     '' using 1:5 with linespoints pt 7 ps 0.6 lw 2 dt 2 lc rgb '#cc3311' title 'with the output, 2 threads', \
     '' using 1:3 with linespoints pt 7 ps 0.6 lw 2 dt 2 lc rgb '#4477aa' title 'statistics, 2 threads'
