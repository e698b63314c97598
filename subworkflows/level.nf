// One binning, from particles to a map. The first one from picks makes its reference; those after it, and runs from
// oriented particles, begin with the average of what they have. What no data set of the run needs is not set up.
include { EXTRACTION ; RECONSTRUCTION } from './steps'
include { INITIAL_REFERENCE } from './initial_reference'
include { REFERENCE } from '../modules/core/reference'
include { REFINE3D ; refine_inputs } from '../modules/relion/refine3d'
include { SELECT } from '../modules/core/select'
include { CLASS3D } from '../modules/relion/class3d'
include { TEST_CLASSES } from '../modules/relion/test_classes'
include { SELECT_CLASSES } from '../modules/core/select_classes'
include { ORIENTATIONS ; orientation_inputs } from '../modules/relion/orientations'
include { FREE_IMAGES } from '../modules/core/free_images'
include { POSTPROCESS } from '../modules/relion/postprocess'
include { at_next_level ; files_of ; half_maps ; named ; particles_of ; step ; through ; together } from './states'
include { json } from './values'

workflow FIRST_LEVEL {
    take:
    states // [meta, state]: plan, levels, series, particles, mask, map
    needs // as of needs_of

    main:
    picks = begun(states)
    EXTRACTION(step(picks, 'extract'), needs.groups)
    extracted = through(picks, EXTRACTION.out, 'extract').branch { _meta, state ->
        oriented: state.plan.initial_reference.mode == 'known'
        searched: true
    }
    jobs = EXTRACTION.out
    starts = channel.empty()
    if (needs.search_known) {
        RECONSTRUCTION(step(extracted.oriented, 'reconstruct', '_start'), needs.groups)
        starts = through(extracted.oriented, RECONSTRUCTION.out, 'maps').map { meta, state -> [meta, state + [star: particles_of(state.extract), alignment: [], reference: state.maps / 'merged.mrc']] }
        jobs = jobs.mix(RECONSTRUCTION.out)
    }
    if (needs.template || needs.denovo) {
        INITIAL_REFERENCE(extracted.searched, needs)
        starts = starts.mix(INITIAL_REFERENCE.out.states)
        jobs = jobs.mix(INITIAL_REFERENCE.out.jobs)
    }
    REFINEMENT(starts.map { meta, state -> [meta, [selection: []] + state + [low_pass: state.level.refine.low_pass, mask_job: []]] }, needs)
    if (needs.free) {
        FREE_IMAGES(REFINEMENT.out.done.map { meta, state -> [meta, state.extract.name, state.extract] })
    }

    emit:
    states = REFINEMENT.out.states
    jobs = jobs.mix(REFINEMENT.out.jobs)
}

workflow LEVEL {
    take:
    states // [meta, state]: levels, series, mask, map, particles, source
    needs // as of needs_of

    main:
    left = states.branch { _meta, state ->
        todo: state.levels
        over: true
    }
    levels = begun(left.todo)
    EXTRACTION(step(levels, 'extract'), needs.groups)
    AVERAGE(levels.map { meta, state -> [meta, state + [name: "${state.level.name}_start".toString(), particles: state.source]] }, needs.groups)
    averaged = through(AVERAGE.out.states, EXTRACTION.out, 'extract').map { meta, state ->
        // A mask that was made from particles in wrong orientations has their shape.
        def masked = state.anew ? [mask_job: []] : [:]
        [meta, state + masked + [low_pass: state.level.refine.low_pass ?: json(state.postprocess / 'job.json').low_pass, star: particles_of(state.extract), alignment: [], selection: []]]
    }
    starts = averaged.filter { _meta, state -> !state.from_map }.map { meta, state -> [meta, state + [reference: half_maps(state.maps)]] }
    jobs = EXTRACTION.out.mix(AVERAGE.out.jobs)
    if (needs.map) {
        given = averaged.filter { _meta, state -> state.from_map }
        REFERENCE(
            given.map { meta, state ->
                def name = state.anew ? "${state.level.name}_template".toString() : 'template'
                [meta, [name: name, box: state.level.size, pixel_size: state.level.pixel_size, low_pass: state.level.refine.low_pass ?: 2 * state.level.pixel_size], state.map]
            }
        )
        starts = starts.mix(given.join(REFERENCE.out).map { meta, state, job -> [meta, state + [reference: job / 'reference.mrc']] })
        jobs = jobs.mix(REFERENCE.out)
    }
    REFINEMENT(starts, needs)
    if (needs.free) {
        FREE_IMAGES(REFINEMENT.out.done.map { meta, state -> [meta, state.extract.name, state.extract] })
    }

    emit:
    states = REFINEMENT.out.states.mix(left.over)
    jobs = jobs.mix(REFINEMENT.out.jobs)
}

// Refinement; where the recipe asks for it, 3D classification of what came out, and at the last level another refinement
// of the particles that are kept.
workflow REFINEMENT {
    take:
    states // as of REFINE
    needs // as of needs_of

    main:
    REFINE(states, needs.groups)
    ended = REFINE.out.states
    jobs = REFINE.out.jobs
    if (needs.classes) {
        after = REFINE.out.states.branch { _meta, state ->
            classify: state.level.classification
            done: true
        }
        CLASS3D(
            after.classify.flatMap { meta, state ->
                def numbers = state.level.classification.numbers
                numbers.collect { number ->
                    def job = [
                        name: numbers.size() > 1 ? "${state.level.name}_k${number}".toString() : state.level.name,
                        settings: state.level.classification.run + [classes: number],
                        series: state.series.tables,
                    ]
                    [meta + [together: numbers.size()], job] + files_of(state.series) + [state.extract, state.particles, state.refinement, state.mask_job]
                }
            }
        )
        // Numbers of classes are tried side by side.
        classified = named(after.classify, together(CLASS3D.out), 'classes')
        asked = classified.branch { _meta, state ->
            test: state.level.classification.test
            none: true
        }
        TEST_CLASSES(
            asked.test.flatMap { meta, state ->
                def block = state.level.classification
                state.classes.collect { classes ->
                    def job = [name: classes.name, settings: block.test, choice: block.choice.subMap(['agreement', 'min_share']), series: state.series.tables]
                    [meta + [together: state.classes.size()], job] + files_of(state.series) + [state.extract, classes, state.mask_job]
                }
            }
        )
        answered = named(asked.test, together(TEST_CLASSES.out), 'class_tests').mix(asked.none.map { meta, state -> [meta, state + [class_tests: []]] })
        SELECT_CLASSES(
            answered.map { meta, state ->
                [meta, [name: state.level.name, choice: state.level.classification.choice, of_classes: state.level.classification.of_classes, diameter: state.level.diameter], state.classes, state.class_tests, state.mask_job]
            }
        )
        // No reference comes out while classes are waited for: nothing follows then.
        selected = named(named(classified, SELECT_CLASSES.out.job, 'particles'), SELECT_CLASSES.out.reference, 'source').branch { _meta, state ->
            last: state.level.last
            passed_on: true
        }
        again = selected.last.map { meta, state -> [meta, state + [level: state.level + [name: "${state.level.name}_selected".toString(), select: [distance: 0.0], refine: state.level.classification.refine]]] }
        chosen = again.map { meta, state -> [meta, state.particles] }
        AVERAGE(again.map { meta, state -> [meta, state + [name: "${state.level.name}_start".toString(), particles: state.source]] }, needs.groups)
        REFINE_SELECTED(
            named(AVERAGE.out.states, chosen, 'selection').map { meta, state ->
                [meta, state + [low_pass: json(state.postprocess / 'job.json').low_pass, star: particles_of(state.selection), alignment: [], reference: half_maps(state.maps)]]
            },
            needs.groups,
        )
        ended = after.done.mix(selected.passed_on, REFINE_SELECTED.out.states)
        jobs = jobs.mix(CLASS3D.out, TEST_CLASSES.out, SELECT_CLASSES.out.job, AVERAGE.out.jobs, REFINE_SELECTED.out.jobs)
    }
    // Of the test of the orientations wait: what removes the images that it reads, and a level that would search anew.
    done = ended
    onwards = ended
    if (needs.orientations) {
        tested = ended.branch { _meta, state ->
            test: state.level.orientations
            none: true
        }
        ORIENTATIONS(tested.test.map { meta, state -> orientation_inputs(meta, state) })
        done = tested.none.mix(named(tested.test, ORIENTATIONS.out, 'tested'))
        next = ended.branch { _meta, state ->
            asks: state.level.orientations && state.levels && state.levels[0].refine_anew
            goes_on: true
        }
        onwards = next.goes_on.mix(named(next.asks, ORIENTATIONS.out, 'tested'))
        jobs = jobs.mix(ORIENTATIONS.out)
    }

    emit:
    done = done // the states when nothing more is to come of them
    states = onwards // with particles, source, maps, mask_job and postprocess; none while classes are waited for
    jobs = jobs // [meta, job]
}

workflow REFINE {
    take:
    states // [meta, state]: level, mask, and what refine_inputs takes
    groups // whether there may be groups

    main:
    REFINE3D(states.map { meta, state -> refine_inputs(meta, state + [name: state.level.name, settings: state.level.refine]) })
    refined = named(states, REFINE3D.out, 'refinement')
    SELECT(refined.map { meta, state -> [meta, [name: state.level.name] + state.level.select, state.refinement] })
    kept = named(refined, SELECT.out, 'particles')
    AVERAGE(kept.map { meta, state -> [meta, state + [name: "${state.level.name}_result".toString(), source: state.particles]] }, groups)

    emit:
    states = AVERAGE.out.states // the same, with refinement, particles, source, maps, mask_job and postprocess
    jobs = REFINE3D.out.mix(SELECT.out, AVERAGE.out.jobs) // [meta, job]
}

// As REFINE, which cannot be called twice in one place.
workflow REFINE_SELECTED {
    take:
    states
    groups

    main:
    REFINE(states, groups)

    emit:
    states = REFINE.out.states
    jobs = REFINE.out.jobs
}

// The average of particles as they are oriented, masked and post-processed.
workflow AVERAGE {
    take:
    states // [meta, state]: name, level, series, mask, particles
    groups // whether there may be groups

    main:
    RECONSTRUCTION(states.map { meta, state -> [meta, state + [settings: state.level.reconstruct]] }, groups)
    averaged = through(states, RECONSTRUCTION.out, 'maps')
    POSTPROCESS(
        averaged.map { meta, state ->
            [meta, [name: state.name, level: state.level.subMap(['size', 'pixel_size', 'diameter', 'mask', 'postprocess'])], state.maps, state.mask]
        }
    )

    emit:
    states = named(named(averaged, POSTPROCESS.out.mask, 'mask_job'), POSTPROCESS.out.job, 'postprocess') // the same, with maps, mask_job and postprocess
    jobs = RECONSTRUCTION.out.mix(POSTPROCESS.out.job) // [meta, job]
}

// The states at the first of the levels that are left.
def begun(states) {
    return states.map { meta, state -> [meta, at_next_level(state)] }
}
