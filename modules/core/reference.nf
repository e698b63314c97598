// The user's map, brought onto a level's grid: the first one's, or that of one which searches all orientations anew.
process REFERENCE {
    tag "${meta.label}${grid.name}"
    label 'core'
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy', overwrite: 'deep'

    input:
    tuple val(meta), val(grid), path(template, stageAs: 'template/*')

    output:
    tuple val(meta), path("Reference/${grid.name}"), emit: job

    script:
    """
    py2rely task reference template/* --box ${grid.box} --pixel-size ${grid.pixel_size} --low-pass ${grid.low_pass} \\
        --output Reference/${grid.name}
    """
}
