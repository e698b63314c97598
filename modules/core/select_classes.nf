// Which classes go on: the table, its picture, and the particle set; with manual selection, only when classes are named.
process SELECT_CLASSES {
    tag "${meta.id} ${name}"
    label 'core'
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy'

    input:
    tuple val(meta), val(name), val(choice), val(diameter), path(classification, stageAs: 'Class3D/*'),
        path(mask, stageAs: 'MaskCreate/*')

    output:
    tuple val(meta), path("Select/${name}_classes"), emit: job
    tuple val(meta), path("Select/${name}_reference"), emit: reference, optional: true

    script:
    """
    py2rely task select-classes ${classification} --mask ${mask}/mask.mrc --diameter ${diameter} \\
        --choice '${groovy.json.JsonOutput.toJson(choice)}' \\
        --output Select/${name}_classes --reference Select/${name}_reference
    """

    stub:
    """
    py2rely task stub Select/${name}_classes particles.star
    ${choice.selection == 'auto' || choice.keep ? "py2rely task stub Select/${name}_reference particles.star" : ''}
    """
}
