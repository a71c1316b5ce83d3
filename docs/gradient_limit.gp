# The picture of docs/findings.md: every row of a capture, its largest weight against its sensitivity.
#   attnscope-report CAPTURE --rows --csv FOLDER
#   gnuplot -e "folder='FOLDER'" docs/gradient_limit.gp > docs/gradient_limit.svg
set terminal svg size 760,420 background '#ffffff' font 'Helvetica,13'
set datafile separator ','
file = folder . '/rows.csv'
# Before the ranges are set: what lies outside them is not counted.
stats file using (column('jacobian_spectral') > 0.25) nooutput name 'over'
stats file using (column('jacobian_spectral') > 0.5 + 1e-12) nooutput name 'wrong'
set xlabel 'largest weight p₁ of the row'
set ylabel 'sensitivity |J|₂ of the row, T = 1'
set xrange [0:1]
set yrange [0:0.75]
set key top left Left reverse samplen 2 spacing 1.15
set border 3 lc rgb '#555555'
set tics nomirror
set grid lc rgb '#dddddd' lt 1
plot file using 'max_weight':(column('jacobian_spectral') <= 0.25 ? column('jacobian_spectral') : NaN) \
         with points pt 7 ps 0.35 lc rgb '#4477aa' title sprintf('%d rows within both limits', over_records - over_sum), \
     file using 'max_weight':(column('jacobian_spectral') > 0.25 ? column('jacobian_spectral') : NaN) \
         with points pt 7 ps 0.35 lc rgb '#cc3311' title sprintf('%d rows above the published limit', over_sum), \
     0.25 with lines lw 2 dt 2 lc rgb '#cc3311' title 'published limit 1/(4T)', \
     0.5 with lines lw 2 lc rgb '#117733' title sprintf('true limit 1/(2T): %d rows above', wrong_sum)
