// One binning, from particles to a map. The first one from picks makes its reference; those after it, and runs from
// oriented particles, begin with the average of what they have.
include { EXTRACTION ; RECONSTRUCTION } from './steps'
include { INITIAL_REFERENCE ; particles_of } from './initial_reference'
include { PREPARE_REFERENCE } from '../modules/core/prepare_reference'
include { REFINE3D } from '../modules/relion/refine3d'
include { SELECT } from '../modules/core/select'
include { CLASS3D } from '../modules/relion/class3d'
include { SELECT_CLASSES } from '../modules/core/select_classes'
include { MASK_POSTPROCESS } from '../modules/relion/mask_postprocess'
include { json } from './json'

workflow FIRST_LEVEL {
    take:
    picks // [meta, plan, series, particle set, given mask, given map]

    main:
    EXTRACTION(picks.map { meta, plan, series, particles, _mask, _map -> [meta, plan.levels[0].name, plan.levels[0].extract] + series + [particles] })
    RECONSTRUCTION(
        picks.filter { row -> row[1].initial_reference.mode == 'known' }
            .map { meta, plan, series, particles, _mask, _map -> [meta, "${plan.levels[0].name}_start".toString(), plan.levels[0].reconstruct] + series + [particles] }
    )
    INITIAL_REFERENCE(
        picks.filter { row -> row[1].initial_reference.mode != 'known' }.join(EXTRACTION.out)
            .map { meta, plan, series, _particles, _mask, map, extract -> [meta, plan.initial_reference, plan.levels[0], series, map, extract] }
    )
    from_orientations = EXTRACTION.out.join(RECONSTRUCTION.out).map { meta, extract, maps -> [meta, particles_of(extract), [], maps / 'merged.mrc'] }
    REFINEMENT(
        picks.join(EXTRACTION.out).join(INITIAL_REFERENCE.out.references.mix(from_orientations))
            .map { meta, plan, series, _particles, mask, _map, extract, star, alignment, reference ->
                [meta, plan.levels[0], series, mask, plan.levels[0].refine.low_pass, star, extract, alignment, [], reference, []]
            }
    )

    emit:
    particles = REFINEMENT.out.particles
    finals = REFINEMENT.out.finals
    jobs = EXTRACTION.out.mix(RECONSTRUCTION.out, INITIAL_REFERENCE.out.jobs, REFINEMENT.out.jobs)
}

workflow LEVEL {
    take:
    levels // [meta, level settings, series, given mask, particle set, what the reference is made from, given map]

    main:
    EXTRACTION(levels.map { meta, level, series, _mask, particles, _source, _map -> [meta, level.name, level.extract] + series + [particles] })
    AVERAGE(levels.map { meta, level, series, mask, _particles, source, _map -> [meta, "${level.name}_start".toString(), level, series, mask, source] })
    given = levels.filter { row -> row[6] }
    PREPARE_REFERENCE(given.map { row -> [row[0], [box: row[1].size, pixel_size: row[1].pixel_size, low_pass: row[1].refine.low_pass ?: 2 * row[1].pixel_size], row[6]] })
    references = AVERAGE.out.maps
        .join(levels.filter { row -> !row[6] }.map { row -> [row[0]] })
        .map { meta, maps -> [meta, [maps / 'half1.mrc', maps / 'half2.mrc']] }
        .mix(PREPARE_REFERENCE.out.map { meta, job -> [meta, job / 'reference.mrc'] })
    REFINEMENT(
        levels.join(EXTRACTION.out).join(references).join(AVERAGE.out.mask).join(AVERAGE.out.postprocess)
            .map { meta, level, series, mask, _particles, _source, _map, extract, reference, mask_job, postprocess ->
                [meta, level, series, mask, level.refine.low_pass ?: json(postprocess / 'job.json').low_pass, particles_of(extract),
                    extract, [], [], reference, mask_job]
            }
    )

    emit:
    particles = REFINEMENT.out.particles
    finals = REFINEMENT.out.finals
    jobs = EXTRACTION.out.mix(AVERAGE.out.jobs, PREPARE_REFERENCE.out, REFINEMENT.out.jobs)
}

// Refinement; where the recipe asks for it, 3D classification of what came out, and at the last level another refinement
// of the particles that are kept.
workflow REFINEMENT {
    take:
    starts // as of REFINE

    main:
    REFINE(starts)
    refined = starts.map { row -> row[0..3] + [row[6]] }.join(REFINE.out.results) // ..., extract, particles, refinement, maps, mask, post-process
    after = refined.branch { row ->
        classify: row[1].classification
        done: true
    }
    CLASS3D(
        after.classify.map { meta, level, series, _given, extract, particles, refinement, _maps, mask, _postprocess ->
            [meta, level.name, level.classification.run, json(refinement / 'job.json').class_low_pass] + series + [extract, particles, refinement, mask]
        }
    )
    SELECT_CLASSES(
        after.classify.join(CLASS3D.out).map { row -> [row[0], row[1].name, row[1].classification.choice, row[1].diameter, row[10], row[8]] }
    )
    // No reference comes out while classes are waited for: nothing follows then.
    selected = after.classify.join(SELECT_CLASSES.out.job).join(SELECT_CLASSES.out.reference)
        .map { row -> row + [row[1] + [name: "${row[1].name}_selected".toString(), select: [distance: 0.0]]] }
        .branch { row ->
            last: row[1].last
            passed_on: true
        }

    AVERAGE(selected.last.map { row -> [row[0], "${row[12].name}_start".toString(), row[12], row[2], row[3], row[11]] })
    REFINE_SELECTED(
        selected.last.join(AVERAGE.out.maps).join(AVERAGE.out.mask).join(AVERAGE.out.postprocess)
            .map { row ->
                [row[0], row[12], row[2], row[3], json(row[15] / 'job.json').low_pass, "Select/${row[10].name}/particles.star".toString(), row[4],
                    [], row[10], [row[13] / 'half1.mrc', row[13] / 'half2.mrc'], row[14]]
            }
    )

    emit:
    particles = after.done.map { row -> [row[0], row[5], row[5]] }
        .mix(selected.passed_on.map { row -> [row[0], row[10], row[11]] }) // [meta, particle set, the same or what the next reference is made from]
    finals = after.done.filter { row -> row[1].last }.map { row -> [row[0], row[5]] + row[7..9] }
        .mix(REFINE_SELECTED.out.results.map { row -> row[0..1] + row[3..5] }) // of the last level: [meta, particle set, half maps, mask job, post-process job]
    jobs = REFINE.out.jobs.mix(CLASS3D.out, SELECT_CLASSES.out.job, AVERAGE.out.jobs, REFINE_SELECTED.out.jobs)
}

workflow REFINE {
    take:
    // [meta, level settings, series, given mask], low-pass, particles STAR, its jobs: extract, alignment, selection;
    // reference map or half maps, mask job
    starts

    main:
    REFINE3D(
        starts.map { meta, level, series, _given, low_pass, star, extract, alignment, selection, reference, mask ->
            [meta, level.name, level.refine.findAll { name, _value -> name != 'low_pass' }, low_pass, star] +
                series + [extract, alignment, selection, reference, mask]
        }
    )
    levels = starts.map { row -> row[0..3] }
    SELECT(levels.join(REFINE3D.out).map { meta, level, _series, _given, refinement -> [meta, level.name, level.select, refinement] })
    AVERAGE(levels.join(SELECT.out).map { meta, level, series, given, particles -> [meta, "${level.name}_result".toString(), level, series, given, particles] })

    emit:
    results = SELECT.out.join(REFINE3D.out).join(AVERAGE.out.maps).join(AVERAGE.out.mask).join(AVERAGE.out.postprocess) // [meta, particle set, refinement, half maps, mask job, post-process job]
    jobs = REFINE3D.out.mix(SELECT.out, AVERAGE.out.jobs) // [meta, job]
}

workflow REFINE_SELECTED {
    take:
    starts // as of REFINE, which cannot be called twice in one place

    main:
    REFINE(starts)

    emit:
    results = REFINE.out.results
    jobs = REFINE.out.jobs
}

// The average of particles as they are oriented, masked and post-processed.
workflow AVERAGE {
    take:
    inputs // [meta, name, level settings, series, given mask, particle set]

    main:
    RECONSTRUCTION(inputs.map { meta, name, level, series, _given, particles -> [meta, name, level.reconstruct] + series + [particles] })
    MASK_POSTPROCESS(
        inputs.join(RECONSTRUCTION.out).map { meta, name, level, _series, given, _particles, maps ->
            [meta, name, level.subMap(['size', 'pixel_size', 'diameter', 'mask', 'postprocess']), maps, given]
        }
    )

    emit:
    maps = RECONSTRUCTION.out
    mask = MASK_POSTPROCESS.out.mask
    postprocess = MASK_POSTPROCESS.out.job
    jobs = RECONSTRUCTION.out.mix(MASK_POSTPROCESS.out.job)
}
