// The first reference where orientations are not known: from the user's map, or from the particles alone.
include { PREPARE_REFERENCE } from '../modules/core/prepare_reference'
include { CLASS3D_ALIGN } from '../modules/relion/class3d_align'
include { INITIAL_MODEL } from '../modules/relion/initial_model'

workflow INITIAL_REFERENCE {
    take:
    datasets // [meta, initial reference settings, first level settings, series, template, extract job]

    main:
    modes = datasets.branch { _meta, settings, _level, _series, _template, _extract ->
        aligned: settings.mode == 'template' && settings.iterations > 0
        template: settings.mode == 'template'
        denovo: settings.mode == 'denovo'
    }

    PREPARE_REFERENCE(modes.aligned.mix(modes.template).map { meta, settings, _level, _series, template, _extract -> [meta, settings.grid, template] })
    templates = PREPARE_REFERENCE.out.map { meta, job -> [meta, job / 'reference.mrc'] }
    from_template = modes.template.join(templates).map { row -> [row[0], particles_of(row[5]), [], row[6]] }

    CLASS3D_ALIGN(
        modes.aligned.join(templates).map { meta, settings, level, series, _template, extract, reference ->
            [meta, level.name, settings.findAll { name, _value -> !(name in ['mode', 'grid']) }, series[1], extract, reference]
        }
    )
    from_alignment = CLASS3D_ALIGN.out.map { meta, job -> [meta, "Class3D/${job.name}/run_data.star".toString(), job, job / 'run_class001.mrc'] }

    INITIAL_MODEL(modes.denovo.map { meta, settings, level, series, _template, extract -> [meta, level.name, settings, series[1], extract] })
    from_particles = modes.denovo.join(INITIAL_MODEL.out).map { row -> [row[0], particles_of(row[5]), [], row[6] / 'initial_model.mrc'] }

    emit:
    references = from_template.mix(from_alignment, from_particles) // [meta, particles STAR, alignment job, map]
    jobs = PREPARE_REFERENCE.out.mix(CLASS3D_ALIGN.out, INITIAL_MODEL.out) // [meta, job]
}

def particles_of(extract) {
    return "Extract/${extract.name}/particles.star".toString()
}
