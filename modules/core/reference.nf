// The user's map, brought onto the first level's grid.
process REFERENCE {
    tag "${meta.label}template"
    label 'core'
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy', overwrite: 'deep'

    input:
    tuple val(meta), val(grid), path(template, stageAs: 'template/*')

    output:
    tuple val(meta), path('Reference/template'), emit: job

    script:
    """
    py2rely task reference template/* --box ${grid.box} --pixel-size ${grid.pixel_size} --low-pass ${grid.low_pass} \\
        --output Reference/template
    """
}
