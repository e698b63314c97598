// Local resolution of the best map, and the map filtered by it; sharpened by the B-factor of the whole map.
include { json_word } from '../../subworkflows/values'

process LOCAL_RESOLUTION {
    tag "${meta.label}${job.name - '_result'}"
    label 'cpu_parallel'
    cpus { job.settings.ranks }
    memory { 1.GB * job.settings.memory * task.attempt }
    containerOptions { meta.binds }
    publishDir path: { "${task.ext.outdir}/${meta.project}" }, mode: 'copy', overwrite: 'deep'

    input:
    tuple val(meta), val(job), path(maps, stageAs: 'Reconstruct/*'), path(mask, stageAs: 'MaskCreate/*')

    output:
    tuple val(meta), path("LocalRes/${job.name}"), emit: job

    script:
    def directory = "LocalRes/${job.name}"
    def settings = job.settings
    def mpi = settings.ranks > 1
    """
    py2rely task relion ${directory} -- ${mpi ? "mpirun -n ${settings.ranks} " : ''}relion_postprocess${mpi ? '_mpi' : ''} --locres \\
        --i ${maps}/half1.mrc --mask ${mask}/mask.mrc --o ${directory}/relion --angpix ${job.pixel_size} \\
        --adhoc_bfac ${job.b_factor} --locres_sampling ${settings.sampling} ${settings.options}
    py2rely task check-local-resolution ${directory} --mask ${mask}/mask.mrc --settings ${json_word(settings)} \\
        --box ${job.size} --pixel-size ${job.pixel_size}
    """

    stub:
    """
    py2rely task stub LocalRes/${job.name} relion_locres.mrc relion_locres_filtered.mrc
    """
}
