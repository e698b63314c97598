// Other programs' tilt series and particles as STAR files. What is wrong with them is part of what comes out: the preflight
// lists it with all the rest.
include { json_word } from '../../subworkflows/values'

process IMPORT_DATA {
    tag "${meta.label}imported"
    label 'core'
    containerOptions { meta.binds }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copyNoFollow', overwrite: true // the stacks stay links

    input:
    tuple val(meta), val(settings), path(files, stageAs: 'inputs/?/*')

    output:
    tuple val(meta), path('imported')

    script:
    """
    printf %s ${json_word(settings)} > settings.json
    py2rely task import-data settings.json --output .
    """
}
