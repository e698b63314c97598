// Refinement at one binning; where the recipe asks for it, 3D classification of what came out, and at the last level
// another refinement of the particles that are kept.
include { REFINE ; REFINE as REFINE_SELECTED } from './refine'
include { CLASS3D } from '../modules/relion/class3d'
include { SELECT_CLASSES } from '../modules/core/select_classes'
include { RECONSTRUCTION as RECONSTRUCT_SELECTED } from './reconstruction'
include { MASK_POSTPROCESS as MASK_POSTPROCESS_SELECTED } from '../modules/relion/mask_postprocess'
include { json } from './json'

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

    RECONSTRUCT_SELECTED(selected.last.map { row -> [row[0], "${row[12].name}_start".toString(), row[12].reconstruct] + row[2] + [row[11]] })
    MASK_POSTPROCESS_SELECTED(
        selected.last.join(RECONSTRUCT_SELECTED.out).map { row ->
            [row[0], "${row[12].name}_start".toString(), row[12].subMap(['size', 'pixel_size', 'diameter', 'mask', 'postprocess']), row[13], row[3]]
        }
    )
    REFINE_SELECTED(
        selected.last.join(RECONSTRUCT_SELECTED.out).join(MASK_POSTPROCESS_SELECTED.out.mask).join(MASK_POSTPROCESS_SELECTED.out.job)
            .map { row ->
                [row[0], row[12], row[2], row[3], json(row[15] / 'job.json').low_pass, "Select/${row[10].name}/particles.star".toString(), row[4],
                    [], row[10], [row[13] / 'half1.mrc', row[13] / 'half2.mrc'], row[14]]
            }
    )

    emit:
    particles = after.done.map { row -> [row[0], row[5], row[5]] }
        .mix(selected.passed_on.map { row -> [row[0], row[10], row[11]] }) // [meta, particle set, the same or what the next reference is made from]
    finals = after.done.filter { row -> row[1].last }.map { row -> [row[0]] + row[5..9] }
        .mix(REFINE_SELECTED.out.results) // of the last level: [meta, particle set, refinement, half maps, mask job, post-process job]
    jobs = REFINE.out.jobs.mix(CLASS3D.out, SELECT_CLASSES.out.job, RECONSTRUCT_SELECTED.out, MASK_POSTPROCESS_SELECTED.out.job, REFINE_SELECTED.out.jobs)
}
