// The whole run: the parameters and the data are checked; each data set is imported, its particles extracted at the
// first binning, a first reference made and refined; then one level after the other; at bin 1 the tilt series are
// polished; at the end the results. Runs from existing results begin further down.
include { RECIPE } from '../modules/core/recipe'
include { REFERENCES as TILT_SERIES_FILES ; REFERENCES as STACK_FILES } from '../modules/core/references'
include { PLAN } from '../modules/core/plan'
include { IMPORT } from '../modules/core/import'
include { EXTRACTION as EXTRACT } from '../subworkflows/extraction'
include { INITIAL_REFERENCE } from '../subworkflows/initial_reference'
include { REFINEMENT } from '../subworkflows/refinement'
include { LADDER } from '../subworkflows/ladder'
include { RECONSTRUCTION as RECONSTRUCT_GIVEN } from '../subworkflows/reconstruction'
include { MASK_POSTPROCESS as MASK_POSTPROCESS_GIVEN } from '../modules/relion/mask_postprocess'
include { POLISHING } from '../subworkflows/polishing'
include { RESULTS } from '../modules/core/results'
include { json } from '../subworkflows/json'

workflow STA {
    take:
    request // every parameter, as JSON
    given // the parameter files and the sample sheet
    project // the directory that relative paths start from
    most // how many levels and polishing cycles a data set has at most

    main:
    RECIPE(request, given)
    sources = RECIPE.out.map { file -> json(file).datasets }
    tables = sources.map { rows -> rows.collect { row -> row.tilt_series }.unique() }
    TILT_SERIES_FILES(tables, project, tables.map { names -> existing(names) })
    tilt_series = TILT_SERIES_FILES.out.map { file -> file.readLines() }
    STACK_FILES(tilt_series.map { names -> existing(names).collect { file -> file.toString() } }, project, tilt_series.map { names -> existing(names) })
    stacks = STACK_FILES.out.map { file -> existing(file.readLines()) }

    inputs = sources.combine(tilt_series.map { names -> [existing(names)] }).combine(stacks.map { files -> [files] })
        .map { row -> existing(row[0..-3].collectMany { one -> [one.particles, one.tilt_series, one.reference, one.motion, one.mask] }.findAll()) + row[-2] + row[-1] }
    PLAN(RECIPE.out, inputs)
    plans = PLAN.out.flatMap { file -> json(file).datasets }
        .map { plan -> within(plan, most) }
        .map { plan -> [plan.subMap(['id', 'project', 'binds']), plan] }

    IMPORT(
        plans.combine(tilt_series.map { names -> [existing(names)] }).combine(stacks.map { files -> [files] }).map { meta, plan, series, images ->
            [meta, plan.subMap(['launch_dir', 'particles', 'tilt_series', 'motion']) + [symmetry: plan.recipe.refine3D.sym_name], existing([plan.particles, plan.tilt_series, plan.motion].findAll()) + series + images]
        }
    )
    datasets = plans.join(IMPORT.out.job)
        .map { meta, plan, job, particles -> [meta, plan, imported(job, plan), particles, plan.mask ? file(plan.mask) : []] }
        .branch { row ->
            polish: row[1].start == 'polish'
            oriented: row[1].oriented
            picks: true
        }

    EXTRACT(datasets.picks.map { meta, plan, series, particles, _mask -> [meta, plan.levels[0].name, plan.levels[0].extract] + series + [particles] })
    INITIAL_REFERENCE(
        datasets.picks.join(EXTRACT.out).map { meta, plan, series, particles, _mask, extract ->
            [meta, plan.initial_reference, plan.levels[0], series, particles, extract, plan.reference ? file(plan.reference) : []]
        }
    )
    REFINEMENT(
        datasets.picks.join(EXTRACT.out).join(INITIAL_REFERENCE.out.references)
            .map { meta, plan, series, _particles, mask, extract, star, alignment, reference ->
                [meta, plan.levels[0], series, mask, plan.levels[0].refine.low_pass, star, extract, alignment, [], reference, []]
            }
    )
    LADDER(
        datasets.picks.join(REFINEMENT.out.particles)
            .map { meta, plan, series, _picks, mask, particles, source -> [meta, plan.levels.drop(1), series, mask, particles, source, []] }
            .mix(
                datasets.oriented.map { meta, plan, series, particles, mask ->
                    [meta, plan.levels, series, mask, particles, particles, plan.reference ? file(plan.reference) : []]
                }
            ),
        most.levels,
    )

    RECONSTRUCT_GIVEN(
        datasets.polish.map { meta, plan, series, particles, _mask -> [meta, "${plan.levels[0].name}_result".toString(), plan.levels[0].reconstruct] + series + [particles] }
    )
    MASK_POSTPROCESS_GIVEN(
        datasets.polish.join(RECONSTRUCT_GIVEN.out).map { meta, plan, _series, _particles, mask, maps ->
            [meta, "${plan.levels[0].name}_result".toString(), plan.levels[0].subMap(['size', 'pixel_size', 'diameter', 'mask', 'postprocess']), maps, mask]
        }
    )
    given_maps = datasets.polish.map { row -> [row[0], row[3]] }
        .join(RECONSTRUCT_GIVEN.out).join(MASK_POSTPROCESS_GIVEN.out.mask).join(MASK_POSTPROCESS_GIVEN.out.job)
    refined_maps = REFINEMENT.out.finals.mix(LADDER.out.finals).map { meta, particles, _refinement, maps, mask, postprocess -> [meta, particles, maps, mask, postprocess] }
    POLISHING(
        plans.join(IMPORT.out.job).join(refined_maps.mix(given_maps))
            .filter { row -> row[1].polishing }
            .map { meta, plan, job, _picks, particles, maps, mask, postprocess ->
                [meta, plan.polishing, plan.levels[-1], imported(job, plan), particles, maps, mask, postprocess]
            },
        most.cycles,
    )

    done = IMPORT.out.job.map { meta, job, _particles -> [meta, job] }
        .mix(EXTRACT.out, INITIAL_REFERENCE.out.jobs, REFINEMENT.out.jobs, LADDER.out.jobs, RECONSTRUCT_GIVEN.out, MASK_POSTPROCESS_GIVEN.out.job, POLISHING.out.jobs)
    jobs = in_order(done)
    pictures = jobs.map { rows -> rows.collectMany { id, job -> shown(job).collect { map -> [id, "${job.parent.name}/${job.name}/${map.name}".toString(), map] } } }
    RESULTS(
        PLAN.out,
        jobs.map { rows -> rows.collect { row -> row[0] } },
        jobs.map { rows -> rows.collect { row -> row[1] / 'job.json' } },
        pictures.map { rows -> rows.collect { row -> "${row[0]}:${row[1]}".toString() } },
        pictures.map { rows -> rows.collect { row -> row[2] } },
        workflow.nextflow.version.toString(),
    )

    emit:
    plan = PLAN.out
    jobs = done // [meta, job] of every job that is complete
}

// No data set may have more steps than are set up: they would be missing without a word.
def within(plan, most) {
    if (plan.levels.size() > most.levels || (plan.polishing ? plan.polishing.cycles : 0) > most.cycles) {
        error("${plan.id} has ${plan.levels.size()} levels and ${plan.polishing?.cycles} cycles of polishing; ${most} are set up.")
    }
    return plan
}

// Where a data set's tilt-series tables are, and the jobs that hold them: import, CTF refinement, polishing.
def imported(job, plan) {
    return [[tomograms: "Import/${job.name}/tomograms.star".toString(), motion: plan.motion ? "Import/${job.name}/motion.star".toString() : ''], job, [], []]
}

// One list of [data set, job], always in the same order, so that a resumed run finds its results in the cache.
def in_order(jobs) {
    return jobs.map { meta, job -> [meta.id, job] }.toSortedList { one, other -> key(one) <=> key(other) }
}

def key(row) {
    return "${row[0]} ${row[1].parent.name} ${row[1].name}"
}

// The maps of a job that the report shows: results, and classes.
def shown(job) {
    if (job.parent.name == 'PostProcess' && !job.name.endsWith('_start')) {
        return [job / 'postprocess.mrc'].findAll { file -> file.exists() } // none where a step of polishing led to no map
    }
    if (job.parent.name == 'Class3D' && !job.name.endsWith('_template')) {
        return job.listFiles().findAll { file -> file.name ==~ /run_class\d+\.mrc/ }.sort { file -> file.name }
    }
    return []
}

// With what links lead to, so that it is bound into containers, too.
def existing(names) {
    return names.collect { name -> file(name) }.findAll { path -> path.exists() }.collectMany { path -> [path, path.toRealPath()] }.unique()
}
