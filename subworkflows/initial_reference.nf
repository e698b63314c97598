// The first reference where orientations are not known: from the user's map, or from the particles alone.
include { REFERENCE } from '../modules/core/reference'
include { CLASS3D_ALIGN } from '../modules/relion/class3d_align'
include { JOIN_HALVES } from '../modules/core/join_halves'
include { INITIAL_MODEL } from '../modules/relion/initial_model'
include { half_maps ; named ; particles_of ; together } from './states'

workflow INITIAL_REFERENCE {
    take:
    states // [meta, state]: plan, level, series, map, extract
    needs // as of needs_of

    main:
    modes = states.map { meta, state -> [meta, state + [settings: state.plan.initial_reference]] }.branch { _meta, state ->
        denovo: state.settings.mode == 'denovo'
        template: true
    }
    found = channel.empty()
    jobs = channel.empty()
    if (needs.template) {
        REFERENCE(modes.template.map { meta, state -> [meta, state.settings.grid + [name: 'template'], state.map] })
        templates = named(modes.template, REFERENCE.out, 'template').branch { _meta, state ->
            aligned: state.settings.iterations > 0
            straight: true
        }
        // Each half set by itself, so that what one of them takes from its noise is not in the other; or all together.
        CLASS3D_ALIGN(
            templates.aligned.flatMap { meta, state ->
                def halves = state.settings.halves
                def settings = state.settings.findAll { key, _value -> !(key in ['mode', 'grid', 'halves']) }
                halves.collect { half ->
                    def job = [name: "${state.level.name}_template${half ? "_half${half}" : ''}".toString(), half: half, settings: settings]
                    [meta + [together: halves.size()], job, state.series.imported, state.extract, state.template / 'reference.mrc']
                }
            }
        )
        alignments = named(templates.aligned, together(CLASS3D_ALIGN.out), 'alignments').branch { _meta, state ->
            apart: state.alignments.size() > 1
            as_one: true
        }
        JOIN_HALVES(alignments.apart.map { meta, state -> [meta, [name: "${state.level.name}_template".toString()], state.alignments] })
        found = templates.straight.map { meta, state -> [meta, state + [star: particles_of(state.extract), alignment: [], reference: state.template / 'reference.mrc']] }
            .mix(
                alignments.as_one.map { meta, state ->
                    def job = state.alignments[0]
                    [meta, state + [star: "Class3D/${job.name}/run_data.star".toString(), alignment: job, reference: job / 'run_class001.mrc']]
                },
                alignments.apart.join(JOIN_HALVES.out).map { meta, state, job ->
                    [meta, state + [star: particles_of(job), alignment: [], selection: job, reference: half_maps(job)]]
                },
            )
        jobs = REFERENCE.out.mix(CLASS3D_ALIGN.out, JOIN_HALVES.out)
    }
    if (needs.denovo) {
        INITIAL_MODEL(modes.denovo.map { meta, state -> [meta, [name: state.level.name, settings: state.settings], state.series.imported, state.extract] })
        found = found.mix(
            modes.denovo.join(INITIAL_MODEL.out).map { meta, state, job ->
                [meta, state + [star: particles_of(state.extract), alignment: [], reference: job / 'initial_model.mrc']]
            }
        )
        jobs = jobs.mix(INITIAL_MODEL.out)
    }

    emit:
    states = found // the same, with star, alignment and reference
    jobs = jobs // [meta, job]
}
